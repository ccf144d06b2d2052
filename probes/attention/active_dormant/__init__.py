"""Active-dormant heads: asleep on one kind of text, at work on another.

A head is dormant on a text when it sends its attention to sinks and so adds next to nothing. Per text and head, over
the positions after the first:

    sink attention   mean over q of the attention that goes to the sink set: position 0, and every other key that counts
                     as a sink of this head by the rule of `attention-sinks` (alpha above epsilon without the own query)
    output norm      mean over q of the norm of z W_O
    dormant          sink attention > 0.8, and output norm < 0.2 of the head's largest over all texts of all domains

`contrast` is the difference between two domains in the share of dormant texts, with a permutation test over texts, a
Benjamini-Hochberg q over all heads, and an interval. It says that a head behaves differently. Whether it matters is a
question of causes: the head is ablated (by zero, and by its mean over a reference text, position 0 keeping its own) and
the change of the loss is measured per domain, beside random heads and a control head from a nearby layer matched on
output norm. A head that sleeps in a domain can be removed there at no cost; where that is not so, it is said.

Texts are cut to one length, BOS included. A text's loss is the mean over its predicted tokens, nats per token.

Source: Guo et al. 2024, arXiv 2410.13835 (dormant heads, zero ablation per domain). The two thresholds on real models,
the test, mean ablation and the matched controls are ours.
"""

from probes.attention.active_dormant.ablation import ablated_loss, base_pass, text_loss
from probes.attention.active_dormant.activity import needs, sink_attention
from probes.attention.active_dormant.contrast import FALSE_DISCOVERY
from probes.attention.active_dormant.entry import ENTRY, run
from probes.attention.active_dormant.figures import (
    ablation_detail,
    attention_figure,
    contrast_figure,
    dormant_figure,
    output_detail,
    texts_detail,
    texts_figure,
)
from probes.attention.active_dormant.settings import Settings
from probes.attention.active_dormant.study import active_dormant, study
from probes.attention.active_dormant.verdict import verdict

__all__ = [
    "ENTRY",
    "FALSE_DISCOVERY",
    "Settings",
    "ablated_loss",
    "ablation_detail",
    "active_dormant",
    "attention_figure",
    "base_pass",
    "contrast_figure",
    "dormant_figure",
    "needs",
    "output_detail",
    "run",
    "sink_attention",
    "study",
    "text_loss",
    "texts_detail",
    "texts_figure",
    "verdict",
]
