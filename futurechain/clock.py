def check_seconds(s,name="seconds"): return s
def call_later(*a): raise RuntimeError
