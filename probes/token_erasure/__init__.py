"""Token erasure: where a model stops carrying the pieces of a word, read by probes with a card.

A readout probe names the token at t + i (i = 0, -1, -2) from the state at t. At the last token of a word of several
tokens the piece before it is readable early and mostly gone later. On a prompt, with two depths:

    erasure(t, i) = p_early(t, i) - p_late(t, i)        p: probability of the true token, over the probe's vocabulary
    psi(span), and greedy segments                      see `psi`

How far this holds is measured by `token-erasure-accuracy`. On the default model, depth 2 to 20, last tokens of words
lose more at offset -1 than other tokens (by 0.19 [0.15, 0.24] of the tokens named) and than equally frequent ones (0.20
[0.16, 0.24]). Against tokens of the same type elsewhere, the strictest control, it is 0.13 [-0.01, 0.22] at offset -1
and 0.10 [0.03, 0.19] at offset 0, from some 250 tokens of one split of the text: likely, not sure.

Source: Feucht et al. 2024, arXiv 2406.20086. The probes are cheaper than the paper's and not bias-free: this is in its
style, not a replication.
"""

from probes.token_erasure.accuracy import ACCURACY
from probes.token_erasure.making import MAKING, card_of
from probes.token_erasure.on_prompt import ENTRY, erasure_of, needs, run, token_erasure
from probes.token_erasure.swap import SWAP
from probes.token_erasure.vocabulary import VOCABULARY

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
