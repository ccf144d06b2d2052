"""How often our tests say yes where nothing is claimed, and how often our intervals hold the truth: measured.

`python -m apps.calibration --minutes 5` goes on where the last call stopped, keeps its counts in
`docs/calibration.json` and writes the table `docs/pages/calibration.md`. `checks` counts p-values of causal checks,
`labels` what random weights are called, `coverage` intervals; `counts` keeps them, `table` prints them.
"""
