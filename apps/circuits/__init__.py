"""The table of circuits: rankings of edges on three tasks of the default model, beside each other.

`make circuits` measures piece by piece and goes on where it stopped; `pieces` says what a piece is, `table` writes
`docs/pages/circuits.md` from them.
"""
