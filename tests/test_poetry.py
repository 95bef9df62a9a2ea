"""The poetry program: real servers, real pools, real processes."""

from __future__ import annotations

import errno
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
from functools import partial
from importlib.resources import files

import pytest

from futurechain import INLINE, ThreadPoolExecutor
from futurechain.demo.poetry import client, engine, main
from futurechain.demo.poetry.server import PoetryServer

POEM = "You are the sea,\nand never sad.\n"


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "futurechain", "poetry", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        **options,
    )


@pytest.fixture
def poem(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text(POEM)
    return str(path)


@pytest.fixture
def gibberish(tmp_path):
    path = tmp_path / "gibberish.txt"
    path.write_text("0101 0110 %%%%\n1111\n")
    return str(path)


# -- the engine and the servers ---------------------------------------------------------------------------------


def test_byronify_changes_words():
    """The engine replaces words, and keeps capitals and everything else."""
    assert engine.byronify(POEM) == "Thee art the main,\nand ne'er melancholy.\n"


@pytest.mark.parametrize("text", ["", "one line only", "0101 0110\n1111 %%%%\n"])
def test_gibberish(text):
    """What is no poem is a GibberishError."""
    with pytest.raises(engine.GibberishError):
        engine.byronify(text)


def test_trouble():
    """The engine fails as often as it is told to, on the same poems for the same seed."""
    with pytest.raises(engine.EngineTroubleError):
        engine.byronify(POEM, 1.0)
    assert engine.byronify(POEM, 0.0)


def test_server_sends_the_poem():
    """A server sends its poem in pieces to everybody who connects."""
    with PoetryServer(POEM.encode(), chunk=7, delay=0.0001) as server:
        assert client.download(server.address).text == POEM
        assert client.download(server.address).size == len(POEM)


def test_a_server_that_is_down_refuses():
    """Nobody listens there."""
    with PoetryServer(b"", chunk=1, delay=0.1, down=True) as server, pytest.raises(OSError):
        client.download(server.address)


def test_an_empty_poem_is_a_failed_download():
    """A server that sends nothing has no poem."""
    with PoetryServer(b"", chunk=1, delay=0.1) as server, pytest.raises(ConnectionError):
        client.download(server.address)


def test_a_server_that_has_sent_all_is_not_timed_out():
    """It closes the connection right after the last byte, however slow it is between two pieces."""
    with PoetryServer(POEM.encode(), chunk=1000, delay=1000) as server:
        assert client.download(server.address, 30).text == POEM


def test_a_silent_server_is_timed_out():
    """The error says how long nothing came."""
    with PoetryServer(POEM.encode(), chunk=5, delay=1000) as server, pytest.raises(TimeoutError, match=r"for 0\.2 sec"):
        client.download(server.address, 0.2)


def test_a_reader_that_goes_away_harms_no_server():
    """The server goes on for the next one."""
    with PoetryServer(POEM.encode() * 1000, chunk=5, delay=0.00001) as server:
        import socket

        socket.create_connection(server.address).close()
        assert client.download(server.address).size == len(POEM) * 1000


# -- the rules ------------------------------------------------------------------------------------------------------


def get(text, trouble=0.0, **options):
    with PoetryServer(text.encode(), chunk=50, delay=0.0001, **options) as server, ThreadPoolExecutor(1) as threads:
        return client.get_poem(server.address, threads, INLINE, trouble, 0, print)


def test_a_poem_is_transformed():
    """A poem in hand is the transformed one."""
    assert get(POEM).result(0).text.startswith("Thee art")


def test_an_engine_error_keeps_the_original():
    """Another error of the engine costs only the improvement."""
    assert get(POEM, trouble=1.0).result(0).text == POEM


def test_gibberish_is_a_failed_download():
    """What the engine takes for no poem fails."""
    assert isinstance(get("0101 0110\n1111").exception(0), engine.GibberishError)


def test_a_failed_download_fails():
    """So does what cannot be downloaded."""
    assert isinstance(get(POEM, down=True).exception(0), OSError)


# -- the program ----------------------------------------------------------------------------------------------------


def test_poems_come_along():
    """The default poems are package data, and none is gibberish."""
    shelf = list((files("futurechain.demo.poetry") / "poems").iterdir())

    assert len(shelf) >= 4
    for path in shelf:
        assert engine.byronify(path.read_text())


def test_default_run():
    """By default every poem is printed, with a summary; stderr is quiet when nobody watches."""
    result = run("--delay", "0.001")

    assert (result.returncode, result.stderr) == (0, "")
    assert "Ozymandias" in result.stdout
    assert "4 of 4 poems" in result.stdout.splitlines()[-1]
    assert "one after another" in result.stdout.splitlines()[-1]


def test_in_process(poem, capsys):
    """The same through main()."""
    assert main(["--trouble", "0", poem]) == 0
    assert "Thee art the main" in capsys.readouterr().out
    assert main(["--trouble", "1", poem]) == 0
    assert "You are the sea" in capsys.readouterr().out


def test_apologies(poem, gibberish, tmp_path, capsys):
    """Gibberish, a server that is down, an empty file and a missing one: apologies, and status 1."""
    empty = tmp_path / "empty.txt"
    empty.touch()
    status = main(["--down", "1", poem, gibberish, str(empty), str(tmp_path / "missing.txt")])
    out, err = capsys.readouterr()

    assert status == 1
    assert out.count(client.SORRY) == 3
    assert "0 of 4 poems" in out
    assert f"poetry: {empty}: the server sent nothing" in err
    assert f"poetry: {gibberish}: this is no poem" in err
    assert f"poetry: {poem}: [Errno {errno.ECONNREFUSED}]" in err
    assert "cannot read" in err
    assert "missing.txt" in err


def test_more_poems_than_descriptors(tmp_path):
    """200 poems are read with 64 descriptors, a few at a time."""
    poems = [tmp_path / str(number) for number in range(200)]
    for path in poems:
        path.write_text(POEM)
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))
    result = run("--delay", "0.0001", "--trouble", "0", *map(str, poems), preexec_fn=few)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("ne'er melancholy") == 200


@pytest.mark.parametrize("place", ["threads", "processes"])
def test_a_window_of_poems(tmp_path, place, capsys):
    """``--window N`` holds so many poems under way; ``--on`` says where the engine works."""
    poems = [tmp_path / str(number) for number in range(12)]
    for path in poems:
        path.write_text(POEM)
    arguments = ["--window", "2", "--on", place, "--delay", "0.0001", "--trouble", "0"]

    assert main([*arguments, *map(str, poems)]) == 0
    assert capsys.readouterr().out.count("ne'er melancholy") == 12


@pytest.mark.parametrize("window", [1, 3])
def test_no_more_poems_than_the_window(tmp_path, monkeypatch, window):
    """No more servers are open at once than the window holds."""
    now, most = 0, 0

    class Counted(PoetryServer):
        def __init__(self, *args, **kwargs):
            nonlocal now, most
            now += 1
            most = max(most, now)
            super().__init__(*args, **kwargs)

        def close(self):
            nonlocal now
            now -= 1
            super().close()

    monkeypatch.setattr(client, "PoetryServer", Counted)
    poems = [tmp_path / str(number) for number in range(9)]
    for path in poems:
        path.write_text(POEM)

    assert main(["--window", str(window), "--on", "threads", "--delay", "0.0001", *map(str, poems)]) == 0
    assert most == window


@pytest.mark.parametrize("place", ["threads", "processes"])
def test_the_command_with_a_window(poem, place):
    """The same as a command: ``python -m futurechain poetry --window N --on threads|processes``."""
    result = run("--window", "1", "--on", place, "--delay", "0.0001", "--trouble", "0", poem, poem)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("ne'er melancholy") == 2


@pytest.mark.slow
def test_on_a_cluster(poem):
    """``--on dask`` has a cluster of its own; ``--scheduler`` takes one that is there, and tells soon if none is."""
    distributed = pytest.importorskip("distributed")
    result = run("--on", "dask", "--delay", "0.0001", "--trouble", "0", poem)
    assert (result.returncode, result.stderr) == (0, "")
    assert "ne'er melancholy" in result.stdout

    kind = {"n_workers": 1, "processes": False, "protocol": "tcp", "dashboard_address": ":0", "silence_logs": 60}
    with distributed.LocalCluster(**kind) as cluster:
        address = cluster.scheduler_address
        result = run("--on", "dask", "--scheduler", address, "--delay", "0.0001", "--trouble", "0", poem)
    assert (result.returncode, result.stderr) == (0, "")
    assert "ne'er melancholy" in result.stdout

    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = run("--on", "dask", "--scheduler", f"tcp://127.0.0.1:{silent.getsockname()[1]}", poem)
    assert (nobody.returncode, nobody.stderr.endswith(": it says nothing\n")) == (1, True)
    nobody = run("--on", "dask", "--scheduler", "tcp://127.0.0.1:9", poem)
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("poetry: no scheduler answers at tcp://127.0.0.1:9")
    assert run("--scheduler", "tcp://127.0.0.1:9", poem).returncode == 2


def test_help_and_bad_usage(capsys):
    """--help tells all; bad values are named."""
    result = run("--help")
    assert "Exit status" in result.stdout
    for arguments in (["--chunk", "0"], ["--delay", "nan"], ["--trouble", "2"]):
        with pytest.raises(SystemExit) as exit_status:
            main(arguments)
        assert exit_status.value.code == 2
        assert arguments[1] in capsys.readouterr().err


def test_progress_on_a_terminal(poem):
    """Somebody who watches stderr sees a line per event."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "futurechain", "poetry", "--trouble", "1", poem], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    process.communicate(timeout=60)
    seen = os.read(ours, 10_000).decode()
    os.close(ours)

    assert "32 bytes" in seen
    assert "kept the original" in seen


def test_ctrl_c_ends_cleanly():
    """Ctrl-C, which the whole process group gets: a message, status 130, no traceback, soon."""
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert (process.returncode, err.strip()) == (130, "poetry: interrupted")


CTRL_C = """
import signal, sys
from futurechain.demo.poetry import client
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with it ignored
print_poems = client.print_poems
client.print_poems = lambda *arguments: print("ready", flush=True) or print_poems(*arguments)
sys.exit(client.main(["--delay", "5"]))
"""


def test_ctrl_c_in_process(monkeypatch, capsys):
    """The same through main(): servers closed, downloads ended, nothing left."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "print_poems", interrupt)

    assert main(["--delay", "5"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_progress_is_told_to_who_watches(monkeypatch, capsys):
    """A line per event, on stderr, if that is a terminal."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    client.Say()("line")

    assert capsys.readouterr().err == "line\n"


def test_workers_ignore_ctrl_c():
    """It is the main process's business."""
    before = signal.getsignal(signal.SIGINT)
    try:
        client.ignore_interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("suffix", ["html", "json"])
def test_a_trace_of_the_run(suffix, poem, tmp_path, capsys):
    """``--trace FILE`` writes a timeline of all stages; a name of another kind is bad usage."""
    file = tmp_path / f"run.{suffix}"
    assert client.main(["--delay", "0.001", "--trouble", "0", "--trace", str(file), str(poem)]) == 0
    assert "improve" in file.read_text()

    for bad in ("run.txt", str(tmp_path / "nowhere" / "run.html")):
        with pytest.raises(SystemExit) as stop:
            client.main(["--trace", bad])
        assert stop.value.code == 2
        assert "--trace" in capsys.readouterr().err
