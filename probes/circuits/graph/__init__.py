"""Circuits on the graph of edges: what each head, MLP and the embedding hands to each later input.

`graph` names nodes and edges, `passes` runs the model with some of them, `gradients` gives what every input is worth.
`rankings` score edges, `selection` keeps some, `faithfulness` measures them on pairs of `tasks`;
`circuit` is the object.
"""
