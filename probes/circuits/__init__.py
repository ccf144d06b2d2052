"""Which parts carry a prediction: attribution, patching, knockout, tracing, and rankings held against each other.

`graph` holds circuits on the graph of edges; `edge_rankings` and `circuit_search` are its views. `prompt_pairs` makes
the pair that most others compare. `rankings`, `evaluation`, `edges` and `curves` ask how much of a task the top of a
ranking carries. Read `activation_patching`, then `evaluation`.
"""

QUESTION = "Which parts carry a prediction?"  # what its views answer: the page groups them by it
