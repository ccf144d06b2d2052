"""Does it matter? What a view claims of a unit, removed beside matched controls.

`claims` says what views claim, `matched_controls` finds units to compare with, `causal_check` is the study.
Read `causal_check`.
"""
