"""Neurons of MLPs: those of one layer that write most at a token, and what they promote (`neurons`); experts of a
mixture: which each token takes (`experts`), and which one kind of text uses and needs (`expert_contrast`)."""

QUESTION = "What do neurons and experts do?"  # what its views answer: the page groups them by it
