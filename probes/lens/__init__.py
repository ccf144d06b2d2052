"""What the model would say: at each depth (`logit_lens`), and of each token of the prompt (`surprisal`).

Both read states or logits of the shared pass. Read `surprisal` first, which is short, then `logit_lens`.
"""
