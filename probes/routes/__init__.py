"""Information-flow routes: which edges between tokens a prediction is made of, and how much of it they carry.

`contributions` measures what each part brings while the pass runs, `flow_routes` is the analysis made of that, and
`extraction` walks the graph of one token down its kept edges; `faithfulness` runs the model on such a graph alone.
`one_layer` and `parts` look into what one edge, state or MLP holds, `heads` and `task_heads` at heads over many texts.
Read contributions, flow_routes, extraction, faithfulness.
"""

QUESTION = "Which way did a prediction come?"  # what its views answer: the page groups them by it
