"""Does it matter? What a view claims of a unit, removed beside matched controls.

`claims` says what views claim; `causal_check` is the study that tests it, made of a `hypothesis`, the `removal` of its
units and of `matched_controls` (as loud by `norms`), the `relation` of effect and norm, and the `verdict`, put in
`sentences`; `head_survey` tests all heads at once, `change` shows how a text goes on without a unit. Read
`causal_check`, then `removal`.
"""

QUESTION = "Does it matter?"  # what its views answer: the page groups them by it
