"""What futurechain costs, beside what else there is.

* ``python -m pytest benchmarks`` (extra ``bench``): every scenario, futurechain and its peers in one table a scenario
* ``python -m benchmarks.ratios``: the promised ratios, met or not
* ``python -m benchmarks.growth``: how the cost of a piece grows with the number of pieces, and the chart of it
* ``python -m benchmarks.cost``: what things cost, counted in function calls

`scenarios` says what is done, `peers` and `pools` who does it, `measure` how it is timed.
"""
