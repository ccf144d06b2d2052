"""Studies of many passes, for the bench: each by its own route, and by the slow one that it replaces.

As in `bench.Row`: `(subject) ->` a callable without arguments, which is what is timed.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from probes.active_dormant import ablated_loss, base_pass
from workbench.intervene import Head

if TYPE_CHECKING:
    from apps.bench import Subject

__all__ = ["FULL_PASSES", "ablations_from_layers", "ablations_in_full"]

FULL_PASSES = 5  # of the slow route: each takes as long as any other, whatever the head


def ablations_from_layers(subject: "Subject") -> Callable[[], Any]:
    """The loss without one head of every layer: a pass that keeps where they start, then each from its layer."""
    heads = _one_per_layer(subject)

    def run():
        _, states = base_pass(subject.model, subject.tokens, [head.layer for head in heads])
        return [ablated_loss(subject.model, subject.tokens, head, states[head.layer]) for head in heads]

    return run


def ablations_in_full(subject: "Subject") -> Callable[[], Any]:
    """The same loss without some of these heads, by whole passes."""
    heads = _one_per_layer(subject)
    heads = heads[:: max(1, len(heads) // FULL_PASSES)][:FULL_PASSES]
    return lambda: [ablated_loss(subject.model, subject.tokens, head, None) for head in heads]


def _one_per_layer(subject: "Subject") -> list[Head]:
    sizes = subject.model.sizes
    return [Head(layer, layer % sizes.n_heads) for layer in range(sizes.n_layers)]
