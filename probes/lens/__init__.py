"""What the model would say: at each depth (`logit_lens`), and of each token of the prompt (`surprisal`).

Both read states or logits of the shared pass. Read `surprisal` first, which is short, then `logit_lens`.
"""

QUESTION = "What would it say, at each depth?"  # what its views answer: the page groups them by it
