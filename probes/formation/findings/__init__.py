"""Findings on toys, over several seeds, each an entry of the catalog with its limits.

`finding` is what all share; `conditions` runs models under several of them and makes the table of what was measured.
`backcopy_formation` measures by `backcopy_heads`, `in_context_automata` beside `in_context_learners`, `abrupt_learning`
beside `two_parameters`. Read `induction_formation` first.
"""
