"""Token erasure: where a model stops carrying the pieces of a word, read by probes with a card.

A readout probe names the token at t + i (i = 0, -1, -2) from the state at t. At the last token of a word of several
tokens the piece before it is readable early and mostly gone later. On a prompt, with two depths:

    erasure(t, i) = p_early(t, i) - p_late(t, i)        p: probability of the true token, over the probe's vocabulary
    psi(span), and greedy segments                      see `psi`

What holds on the default model and what does not is measured by `token-erasure-accuracy`: the drop at offset -1 stands
against tokens of the same type elsewhere, the one at offset 0 does not. It is graded, not a matter of yes or no.

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
