"""Studies of many passes, for the bench: each by its own route, and by the slow one that it replaces.

Each is `(subject) ->` a callable without arguments, which is what is timed. They are measured at one size, once; a goal
names the slow route or a single pass, and how many of those one of them replaces.
"""

from typing import Any

from apps.bench.subject import Subject, Timed
from probes.attention.active_dormant.ablation import ablated_loss, base_pass
from probes.checks.removal import check
from probes.circuits.graph.rankings import rank
from probes.circuits.graph.tasks import Pair
from workbench.intervene import Head, Patch
from workbench.models.hooks import Z
from workbench.models.prompt import Prompt, tokenise
from workbench.models.target import Target
from workbench.observation import observe
from workbench.observation.metrics import Metric
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run, values_of

__all__ = [
    "FULL_PASSES",
    "ablations_from_layers",
    "ablations_in_full",
    "check_of_a_head",
    "edges_ranked",
    "patches_from_layers",
    "patches_in_full",
]

FULL_PASSES = 5  # of the slow route: each takes as long as any other, whatever the head


def ablations_from_layers(subject: Subject) -> Timed:
    """The loss without one head of every layer: a pass that keeps where they start, then each from its layer."""
    heads = _one_per_layer(subject)

    def run() -> list[Any]:
        _, states = base_pass(subject.model, subject.tokens, [head.layer for head in heads])
        return [ablated_loss(subject.model, subject.tokens, head, states[head.layer]) for head in heads]

    return run


def ablations_in_full(subject: Subject) -> Timed:
    """The same loss without some of these heads, by whole passes."""
    heads = _one_per_layer(subject)
    heads = heads[:: max(1, len(heads) // FULL_PASSES)][:FULL_PASSES]
    return lambda: [ablated_loss(subject.model, subject.tokens, head, None) for head in heads]


def _one_per_layer(subject: Subject) -> list[Head]:
    sizes = subject.model.sizes
    return [Head(layer, layer % sizes.n_heads) for layer in range(sizes.n_layers)]


def patches_from_layers(subject: Subject) -> Timed:
    """Every head of every layer patched at the last position: the base run that it restarts from, then the sweep."""
    model, tokens, cells = subject.model, subject.tokens[0], _patches(subject)
    metric = Metric("logit difference", Target.one(0), Target.one(1))
    return lambda: values_of(model, base_run(model, tokens), cells, metric)


def patches_in_full(subject: Subject) -> Timed:
    """Some of these patches, each by a whole pass of its own."""
    model, tokens, cells = subject.model, subject.tokens[0], _patches(subject)
    cells = cells[:: max(1, len(cells) // FULL_PASSES)][:FULL_PASSES]
    return lambda: [observe(model, tokens, interventions=cell).logits for cell in cells]


def _patches(subject: Subject) -> list[list[Patch]]:
    """One cell per head, from the same tokens in another order."""
    sizes, ids = subject.model.sizes, subject.tokens[0].ids
    source = record(subject.model, Prompt.ids((ids[0], *reversed(ids[1:]))), [Z])
    return [
        [Patch(Z, layer, source, (-1,), (head,))] for layer in range(sizes.n_layers) for head in range(sizes.n_heads)
    ]


def check_of_a_head(subject: Subject) -> Timed:
    """A causal check of one head in the middle of the model with 50 controls, from its own passes."""
    head = Head(subject.model.sizes.n_layers // 2, 0)
    return lambda: check(subject.model, subject.tokens[0], [head])


def edges_ranked(subject: Subject) -> Timed:
    """Every edge of the graph scored by EAP on one pair: the tokens, and the same ones in another order."""
    model, ids = subject.model, subject.tokens[0].ids
    clean, corrupt = (tokenise(model, Prompt.ids(some)) for some in (ids, (ids[0], *reversed(ids[1:-1]), ids[-1])))
    pair = Pair(clean, corrupt, Target.one(0), Target.one(1))
    return lambda: rank(model, [pair], "EAP")
