"""A circuit: edges of a model that do a task, with the scores that chose them.

It is searched to a wanted faithfulness on pairs that the ranking has not seen, run alone or taken out, compared with
another, held against random circuits of its size, saved, and read and written as the benchmark's JSON.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.circuits.graph.faithfulness import Measured
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.selection import ordered, select
from workbench.errors import InputError
from workbench.files import write_whole
from workbench.intervene import MLP, Ablate, Head
from workbench.models.model import Model
from workbench.records import read_json
from workbench.statistics import monte_carlo_p
from workbench.storage.json_text import strict

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Circuit", "against_random", "described", "random_circuits", "search"]

_MOST_UNITS = 1_000  # layers, or heads of one, that a file may speak of
_MOST_PLACES = 1 << 27  # of sources and targets: 80 layers of 64 heads have 82 million


@dataclass(frozen=True, eq=False)
class Circuit:
    """Edges that are kept, `mask` bool `[source, target]`, and scores of all edges, same shape (NaN: unknown).

    about: where it is from, such as model, task, ranking and selection; saved with it.
    """

    graph: Graph
    mask: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", self.graph.checked(self.mask))

    def __len__(self) -> int:
        return int(self.mask.sum())

    @property
    def edges(self) -> list[str]:
        """Names of its edges, the strongest first."""
        places = np.argwhere(self.mask)
        strength = np.nan_to_num(np.abs(self.scores[self.mask]))
        return [self.graph.name(*places[i]) for i in np.argsort(-strength, kind="stable")]

    @property
    def uses(self) -> np.ndarray:
        """Which sources it uses, bool `[source]`."""
        return np.asarray(self.mask.any(axis=1))

    @property
    def nodes(self) -> list[str]:
        """Names of the sources that it uses."""
        return [name for name, used in zip(self.graph.sources, self.uses, strict=True) if used]

    @property
    def complement(self) -> np.ndarray:
        """All other edges: the model without the circuit."""
        return self.graph.exists & ~self.mask

    def ablations(self, *how: Any) -> list[Ablate]:
        """The circuit as one unit for `Model.edited`: its heads and MLPs, ablated. how: as for `Ablate`."""
        found: list[Ablate] = []
        for layer in range(self.graph.n_layers):
            used = self.uses
            found += [Ablate(Head(layer, h), *how) for h in np.flatnonzero(used[self.graph.heads(layer)]).tolist()]
            if self.graph.mlps and used[self.graph.mlp(layer)]:
                found.append(Ablate(MLP(layer), *how))
        return found

    def overlap(self, other: "Circuit") -> dict[str, float]:
        """Shared edges and nodes as a share of those of either (Jaccard), 0 to 1."""
        if self.graph != other.graph:
            raise InputError("a circuit of another graph", "two of the same sizes", "Compare circuits of one model")
        found = {}
        for name, mine, yours in (
            ("edges", self.mask, other.mask),
            ("nodes", self.uses, other.uses),
        ):
            either = int((mine | yours).sum())
            found[name] = int((mine & yours).sum()) / either if either else 1.0
        return found

    # --- files -------------------------------------------------------------------------------------------------------

    def benchmark(self) -> dict[str, Any]:
        """As MIB writes it: `cfg`, `nodes` and `edges` with scores and whether they are in the graph."""
        graph, used = self.graph, self.uses
        cfg = {"n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel_attn_mlp": graph.parallel}
        nodes = {name: {"in_graph": bool(here)} for name, here in zip(graph.sources, used, strict=True)}
        nodes["logits"] = {"in_graph": bool(self.mask[:, -1].any())}
        edges = {}
        for source, target in np.argwhere(graph.exists).tolist():
            score = float(self.scores[source, target])
            edges[graph.name(source, target)] = {
                "score": score if np.isfinite(score) else None, "in_graph": bool(self.mask[source, target]),
            }  # fmt: skip
        return {"cfg": cfg | {"attn_only": not graph.mlps}, "nodes": nodes, "edges": edges, "about": self.about}

    def save(self, path: str | Path) -> Path:
        """Write it as the benchmark's JSON, whole or not at all."""
        write_whole(Path(path), json.dumps(strict(self.benchmark()), allow_nan=False).encode())
        return Path(path)

    @classmethod
    def open(cls, path: str | Path) -> "Circuit":
        """Read the benchmark's JSON, of ours or another's. InputError for what is none."""
        given = read_json(path)
        try:
            cfg, nodes, edges, about = given["cfg"], given["nodes"], given["edges"], dict(given.get("about") or {})
            mlps = not _truth(cfg.get("attn_only", not any(str(name).startswith("m") for name in nodes)))
            parallel = _truth(cfg.get("parallel_attn_mlp", False))
            graph = Graph(_count(cfg["n_layers"]), _count(cfg["n_heads"]), mlps, parallel)
            if math.prod(graph.shape) > _MOST_PLACES:
                raise ValueError(f"{graph.shape[0]:,} sources and {graph.shape[1]:,} targets")
            mask, scores = np.zeros(graph.shape, bool), np.full(graph.shape, np.nan)
            for name, edge in edges.items():
                place = graph.place(name)
                mask[place] = _truth(edge["in_graph"])
                scores[place] = np.nan if edge.get("score") is None else float(edge["score"])
        except InputError as error:
            raise InputError(f"{error.got} in {path}", error.expected, error.remedy) from error
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{path}, which is no circuit ({error!r})", "JSON with cfg, nodes and edges", "Check the file"
            ) from error
        return cls(graph, mask, scores, about)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def figure(self, *, edges: int = 60) -> "go.Figure":
        """The strongest edges on a lattice of heads by layer; see `probes.circuits.graph.drawing`."""
        from probes.circuits.graph.drawing import circuit_figure

        return circuit_figure(self, edges=edges)


def _truth(value: Any) -> bool:
    """Whether it says yes; ValueError for what says neither, such as the text "false", which Python takes for true."""
    if isinstance(value, str) or value not in (0, 1):
        raise ValueError(f"{value!r} for true or false")
    return bool(value)


def _count(value: Any) -> int:
    """A number of layers or heads; ValueError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_UNITS:
        raise ValueError(f"{value!r} layers or heads")
    return value


def random_circuits(circuit: Circuit, draws: int, seed: int = 0) -> list[np.ndarray]:
    """Circuits of as many edges drawn at random, connected in the same way."""
    graph, n, random = circuit.graph, len(circuit), np.random.default_rng(seed)
    places = np.flatnonzero(graph.exists)
    return [select(graph, random.permutation(places), n) for _ in range(draws)]


def search(
    measured: Measured, scores: np.ndarray, wanted: float = 0.8, how: str = "absolute", **options: Any
) -> Circuit | None:
    """The smallest circuit of a ranking that reaches the wanted faithfulness on the pairs of `measured`; None where not
    even half of all edges do.

    Sizes are tried from 10 edges on, doubled until one reaches it, then halved between: f need not rise with size, so
    that a smaller one may be missed. Give pairs that made no ranking, and test it on others still.
    """
    graph = measured.graph
    order = ordered(graph, scores, how, **options)
    mean = scores.mean(0) if scores.ndim == 3 else scores
    reaches = lambda mask: float(measured.faithfulness([mask])[0]) >= wanted
    size, low, best = 10, 0, None
    while best is None:
        mask = select(graph, order, size)
        if reaches(mask):
            best = mask
        elif size >= graph.n_edges // 2:
            return None
        else:
            low, size = size, min(2 * size, graph.n_edges // 2)
    while size - low > max(1, low // 8):
        middle = (low + size) // 2
        mask = select(graph, order, middle)
        if reaches(mask):
            size, best = middle, mask
        else:
            low = middle
    return Circuit(graph, best, mean, {"selection": how, "wanted": wanted})


def against_random(measured: Measured, circuit: Circuit, draws: int = 20, seed: int = 0) -> dict[str, Any]:
    """f of a circuit beside random ones of its size: `faithfulness`, `random` (one each) and the Monte Carlo p-value,
    (1 + those as faithful) / (1 + draws)."""
    found = measured.faithfulness([circuit.mask, *random_circuits(circuit, draws, seed)])
    return {"faithfulness": float(found[0]), "random": found[1:], "p": float(monte_carlo_p(found[0], found[1:]))}


def described(model: Model, circuit: Circuit, n: int = 5) -> str:
    """In words: size and strongest edges."""
    named = ", ".join(circuit.edges[:n])
    share = len(circuit) / circuit.graph.n_edges
    return f"{len(circuit)} of {circuit.graph.n_edges} edges ({share:.2%}) of {model.name}; strongest: {named}."
