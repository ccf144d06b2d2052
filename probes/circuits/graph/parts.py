"""Parts of circuits: scores of nodes, what each node is worth in a circuit, and how stable a choice of edges is."""

from collections.abc import Callable, Sequence

import numpy as np

from probes.circuits.graph.circuit import Circuit
from probes.circuits.graph.faithfulness import Measured
from probes.circuits.graph.graph import Graph
from workbench.errors import InputError

__all__ = ["minimality", "node_scores", "of_top_nodes", "stability"]


def node_scores(graph: Graph, scores: np.ndarray) -> np.ndarray:
    """Scores of sources `[..., source]` from those of edges: what a node sends along all of them. Of EAP that is the
    node's own attribution, since its change goes along every edge that leaves it."""
    return np.where(graph.exists, scores, 0).sum(-1)


def of_top_nodes(graph: Graph, scores: np.ndarray, share: float, *, signed: bool = False) -> np.ndarray:
    """The circuit of all edges among the top share of nodes (round(share * nodes), as `circuit-evaluation` counts) and
    the input. scores: `[source]`; signed: by score, else by absolute score."""
    values = np.asarray(scores, float)[1:]
    order = np.argsort(-values if signed else -np.abs(values), kind="stable")
    kept = np.zeros(graph.shape[0], bool)
    kept[1 + order[: round(share * len(values))]] = True
    return graph.of_nodes(kept)


def minimality(measured: Measured, circuit: Circuit, nodes: Sequence[str] | None = None) -> dict[str, float]:
    """What each node of a circuit is worth there: f of the circuit minus f without the edges from and into the node,
    largest first. Near 0: the circuit does not need it. nodes: of these only."""
    asked = circuit.nodes if nodes is None else nodes
    graph, names = circuit.graph, [name for name in asked if name != "input"]
    without = []
    for name in names:
        source = graph.sources.index(name)
        mask = circuit.mask.copy()
        mask[source] = False
        mask[:, graph.node_of == source] = False
        without.append(mask)
    f, *others = measured.faithfulness([circuit.mask, *without]).tolist()
    worth = {name: f - other for name, other in zip(names, others, strict=True)}
    return dict(sorted(worth.items(), key=lambda item: -item[1]))


def stability(
    scores: np.ndarray, choose: Callable[[np.ndarray], Sequence[np.ndarray]], *, draws: int = 5, seed: int = 0
) -> np.ndarray:
    """How alike circuits are whose rankings stand on different halves of the pairs: Jaccard overlap of their edges,
    mean over draws of two halves. 1: the same edges.

    scores: by pair, `[pair, source, target]`. choose: circuits (one for each budget) of scores. Returns `[budget]`; NaN
    where a budget holds no edge in both halves of a draw: two empty circuits share nothing and differ in nothing.
    """
    if len(scores) < 2:
        raise InputError(f"{len(scores)} pairs", "at least two, for two halves", "Rank on more pairs")
    random, found = np.random.default_rng(seed), []
    for _ in range(draws):
        order, half = random.permutation(len(scores)), len(scores) // 2
        pairs = zip(choose(scores[order[:half]]), choose(scores[order[half:]]), strict=True)
        found.append([(a & b).sum() / either if (either := (a | b).sum()) else np.nan for a, b in pairs])
    return np.mean(found, axis=0)
