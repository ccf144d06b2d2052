"""Token erasure: where a model stops carrying the pieces of a word, read by probes with a card.

A readout probe names the token at t + i (i = 0, -1, -2) from the state at t. At the last token of a word of several
tokens the piece before it is readable early and mostly gone later. On a prompt, with two depths:

    erasure(t, i) = p_early(t, i) - p_late(t, i)        p: probability of the true token, over the probe's vocabulary
    psi(span), and greedy segments                      see `psi`

How far this holds is measured by `token-erasure-accuracy`. On the default model, depth 2 to 20, one split of the text,
last tokens of words lose this much more than a control (share of tokens named, 95 % over documents), with trained
weights, with random ones around the trained embedding, and the first less the second:

    offset -1, against other tokens          0.19 [0.15, 0.24]     0.07 [0.03, 0.11]    0.12 [0.08, 0.17]
    offset -1, equally frequent ones         0.20 [0.16, 0.24]     0.11 [0.06, 0.15]    0.09 [0.05, 0.13]
    offset -1, tokens of the same type       0.13 [-0.005, 0.22]   0.09 [0.01, 0.14]    0.04 [-0.08, 0.15]
    offset 0, tokens of the same type        0.10 [0.03, 0.19]     0.00 [0.00, 0.00]    0.10 [0.03, 0.19]

Against the same type, from some 250 tokens, the drop at offset -1 is likely, not sure, and no larger than that of
random weights as far as this text can tell. Offset -2 has too few tokens for it.

Source: Feucht et al. 2024, arXiv 2406.20086. The probes are cheaper than the paper's and not bias-free: this is in its
style, not a replication.
"""

from probes.erasure.accuracy import ACCURACY
from probes.erasure.on_prompt import ENTRY, erasure_of, needs, run, token_erasure
from probes.erasure.readout_probes import MAKING, card_of
from probes.erasure.swap import SWAP
from probes.erasure.vocabulary import VOCABULARY

__all__ = [
    "ACCURACY",
    "ENTRY",
    "MAKING",
    "SWAP",
    "VOCABULARY",
    "card_of",
    "erasure_of",
    "needs",
    "run",
    "token_erasure",
]
