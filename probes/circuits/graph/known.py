"""Models whose circuit is known, and how well a ranking recovers it.

Source: in the spirit of Tracr (arXiv 2301.05062) and InterpBench (arXiv 2407.14494): a ground truth by construction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import rankdata

from probes.circuits.graph.graph import Graph
from probes.circuits.graph.tasks import Pair
from workbench.loading.pretrained import wrap
from workbench.loading.toys.circuits import induction_circuit, previous_token_circuit
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.models.target import Target

__all__ = ["KNOWN", "Known", "recovery"]


@dataclass(frozen=True, eq=False)
class Known:
    """A model, pairs that need all of its circuit, and the edges of that."""

    model: Model = field(repr=False)
    pairs: tuple[Pair, ...]
    edges: tuple[str, ...]

    @property
    def true(self) -> np.ndarray:
        """The circuit, bool `[source, target]`."""
        return Graph.of(self.model.sizes).circuit(self.edges)


def recovery(known: Known, scores: np.ndarray) -> dict[str, float]:
    """How well scores `[source, target]` (or by pair) find the true edges, by absolute value: `auc` under the ROC curve
    (1: all of them first; .5: by chance; ties count half), and `precision` among as many edges as there are."""
    graph, true = Graph.of(known.model.sizes), known.true
    mean = scores.mean(0) if scores.ndim == 3 else scores
    values, labels = np.abs(mean[graph.exists]), true[graph.exists]
    n, m = int(labels.sum()), int((~labels).sum())
    auc = (rankdata(values)[labels].sum() - n * (n + 1) / 2) / (n * m)
    first = np.argsort(-values, kind="stable")[:n]
    return {"auc": float(auc), "precision": float(labels[first].mean())}


def _induction(n: int = 8, seed: int = 0) -> Known:
    """... A B ... A -> B by a previous-token head and an induction head. The counterfactual has another pair A' B' in
    the same places, so that every edge of the circuit brings something else; patterns are not saturated."""
    model = wrap(induction_circuit(d_vocab=32, n_ctx=16, sharpness=12.0), None, name="known-induction")
    random, pairs = np.random.default_rng(seed), []
    for _ in range(n):
        a, b, other_a, other_b, *rest = random.permutation(32)[:12].tolist()
        at, rest = int(random.integers(1, 5)), rest[:6]
        row = lambda x, y, at=at, rest=rest: [*rest[:at], x, y, *rest[at:], x]
        pairs.append(_pair(model, row(a, b), row(other_a, other_b), b, other_b))
    edges = ("input->a0.h0<v>", "a0.h0->a1.h0<k>", "input->a1.h0<q>", "input->a1.h0<v>", "a1.h0->logits")
    return Known(model, tuple(pairs), edges)


def _previous(n: int = 8, seed: int = 0) -> Known:
    """The token before the last one, by one head of two in one layer; the counterfactual has another there."""
    model = wrap(previous_token_circuit(d_vocab=24, n_ctx=12), None, name="known-previous-token")
    random, pairs = np.random.default_rng(seed), []
    for _ in range(n):
        one, other, *rest = random.permutation(24)[:8].tolist()
        pairs.append(_pair(model, [*rest[:5], one, rest[5]], [*rest[:5], other, rest[5]], one, other))
    return Known(model, tuple(pairs), ("input->a0.h1<v>", "a0.h1->logits"))


def _pair(model: Model, clean: Sequence[int], corrupt: Sequence[int], answer: int, wrong: int) -> Pair:
    first, second = (tokenise(model, Prompt.ids(list(ids))) for ids in (clean, corrupt))
    return Pair(first, second, Target.one(answer), Target.one(wrong))


KNOWN: dict[str, Callable[[], Known]] = {"induction": _induction, "previous token": _previous}
