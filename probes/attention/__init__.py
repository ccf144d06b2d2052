"""Where heads look, and what kind of head each is.

`pattern` shows one head; `induction/`, `sinks/` and `active_dormant/` measure kinds of heads; `head_table` puts all
scores side by side. Read `pattern`, then `induction/`, then `sinks/`.
"""

QUESTION = "Which heads look where?"  # what its views answer: the page groups them by it
