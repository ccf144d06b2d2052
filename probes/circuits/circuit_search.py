"""One circuit of a task: the smallest that reaches a wanted faithfulness, tested on pairs that nothing has seen."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr

from probes.checks import claims
from probes.circuits.edge_rankings import TaskName, pairs_of, task_digest
from probes.circuits.graph.circuit import Circuit, against_random, search
from probes.circuits.graph.faithfulness import ABLATIONS, Measured
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.rankings import RANKINGS, forwards, rank
from probes.circuits.graph.selection import SELECTIONS
from probes.circuits.graph.tasks import Task
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.progress import part
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.arguments import fitted
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, PARTS, READOUT, RESIDUAL
from workbench.statistics import ratio_interval
from workbench.words import counted, hundredths

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["VIEW", "CircuitSearch", "circuit_of", "circuit_result"]


class CircuitSearch(Study, name="circuit", title="Circuit of a task", requires=(READOUT, PADDING, RESIDUAL, PARTS)):
    """The smallest circuit of edges that does a task as well as wanted, beside random circuits of its size.

    Definition: Edges are ranked on some pairs; the smallest circuit whose faithfulness reaches the wanted one is
    searched on others; f, completeness and the comparison are on third ones. Completeness is f of all other edges,
    when the circuit's are taken out: near 0 where nothing else does the task. p = (1 + random circuits as faithful) /
    (1 + their number); they have as many edges and are connected in the same way (see `probes.circuits.graph`).

    Limits: The smallest that the search met, of one ranking: a smaller one may be missed, and another of the same size
    may do as well. A circuit that is faithful and not complete has a rival. It holds for the task's pairs.

    Source: measures arXiv 2504.13151 and 2211.00593; the ranking is that of arXiv 2508.21258 unless another is asked.

    Returns: `edge_source`, `edge_target` and `score` (edge), strongest first; `strength` (layer, head), summed
    absolute scores of what a head sends along the circuit; `faithfulness` with `_low` and `_high`, `completeness`, `p`,
    `n_kept`; `random_faithfulness` (draw). Without a circuit no edges, and NaN.
    """

    prompted: ClassVar[bool] = False
    task: TaskName = "indirect object"
    wanted: Annotated[float, Range(0.05, 1.0), "the faithfulness to reach"] = 0.8
    ranking: Annotated[str, Choice(RANKINGS), "how edges are ranked"] = "RelP"
    selection: Annotated[str, Choice(SELECTIONS), "how edges are kept by their scores"] = "mixed"
    ablation: Annotated[str, Choice(ABLATIONS), "what the other edges bring"] = "patched"
    pairs: Annotated[int, Range(1, 500), "pairs to rank on, and as many to search on"] = 8
    tested: Annotated[int, Range(1, 1000), "other pairs to test on"] = 16
    draws: Annotated[int, Range(0, 200), "random circuits of its size"] = 19
    seed: Annotated[int, Range(0, 2**31 - 1), "draws the pairs and the random circuits"] = 0

    def artifact(self, model: Model) -> str | None:
        """What the pairs of a user's file are: an edited file asks something else."""
        return task_digest(self.task)

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The circuit with its faithfulness, then beside random ones."""
        n = {"train": self.pairs, "validation": self.pairs, "test": self.tested}
        found = pairs_of(model, self.task, **n, seed=self.seed)
        scores = rank(model, found.train, self.ranking, seed=self.seed, progress=part(progress, 0, 0.2))
        searched = Measured(model, found.validation, self.ablation)
        circuit = search(searched, scores, self.wanted, self.selection)
        if progress is not None:
            progress(0.6)
        about = {"model": model.name, "task": found.name, "ranking": self.ranking}
        measured = Measured(model, found.test, self.ablation)
        if circuit is None:
            nothing = Circuit(Graph.of(model.sizes), np.zeros(scores.shape[1:], bool), scores.mean(0), about)
            said = f"No circuit of half of the edges reaches f = {self.wanted:g} on {found.name!r}: nothing found."
            if float((searched.whole - searched.empty).mean()) <= 0:
                said = _undefined(len(searched.pairs), found.name, "to search on")
            yield circuit_result(nothing, measured, {}).assign_attrs(summary=found.noted(said), pairs=found.describe())
            return
        circuit = Circuit(circuit.graph, circuit.mask, circuit.scores, circuit.about | about)
        yield self._told(circuit_result(circuit, measured, {}), found)
        if self.draws:
            compared = against_random(measured, circuit, self.draws, self.seed)
            if progress is not None:
                progress(1.0)
            yield self._told(circuit_result(circuit, measured, compared), found)

    def _told(self, result: xr.Dataset, task: Task) -> xr.Dataset:
        f, low, high = (float(result[f"faithfulness{end}"]) for end in ("", "_low", "_high"))
        n, every, n_pairs = int(result["n_kept"]), result.attrs["n_edges"], result.attrs["n_pairs"]
        if not np.isfinite(f):
            said = (
                f"{n} of {every} edges ({n / every:.2%}) were found. {_undefined(n_pairs, self.task, 'that are new')}"
            )
            return result.assign_attrs(summary=task.noted(said), pairs=task.describe())
        between = f" [{hundredths(low)}, {hundredths(high)}]" if np.isfinite(low) else ""
        # Not of the logit difference itself: with no edge the answers of the counterfactual are preferred, and half of
        # what lies between is a difference of none.
        said = (
            f"{n} of {every} edges ({n / every:.2%}) keep {hundredths(f)}{between} of what all edges add to the logit "
            f"difference of {self.task!r} on {counted(n_pairs, 'new pair')}; without them "
            f"{hundredths(float(result['completeness']))} is left."
        )
        if np.isfinite(float(result["p"])):
            best = float(result["random_faithfulness"].max())
            said += f" Random circuits of this size keep at most {hundredths(best)} (p = {float(result['p']):.2g})."
        return result.assign_attrs(summary=task.noted(said), pairs=task.describe())

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A ranking, about twelve circuits to search, and the random ones."""
        ranked = max(10.0, forwards(self.ranking, Graph.of(sizes).n_edges, self.pairs))
        return float(ranked * self.pairs + 3 * 12 * self.pairs + 3 * (3 + self.draws) * self.tested)


def _undefined(n: int, task: str, which: str) -> str:
    """Why there is no faithfulness."""
    return (
        f"On {counted(n, 'pair')} of {task!r} {which} the whole model prefers the answers no more than with no edge "
        "kept: there is nothing that a circuit could be faithful to."
    )


def circuit_result(circuit: Circuit, measured: Measured, compared: dict[str, Any]) -> xr.Dataset:
    """What `CircuitSearch` returns of a circuit measured on pairs; compared: of `against_random`, or nothing."""
    graph = circuit.graph
    edges = [graph.place(name) for name in circuit.edges]
    has = len(edges) > 0
    kept, rest, whole, empty = measured.of(
        [circuit.mask, circuit.complement, graph.exists, np.zeros(graph.shape, bool)]
    )
    gap = float((whole - empty).mean())
    ratio = lambda values: float((values - empty).mean()) / gap if has and gap > 0 else np.nan
    low, high = ratio_interval(kept - empty, whole - empty) if has and gap > 0 else (np.nan, np.nan)
    strength = np.full((graph.n_layers, graph.n_heads), np.nan)
    totals = np.where(circuit.mask, np.abs(circuit.scores), 0).sum(1)
    for layer in range(graph.n_layers):
        used = circuit.uses[graph.heads(layer)]
        strength[layer, used] = totals[graph.heads(layer)][used]
    random = np.asarray(compared.get("random", []), float)
    text = lambda values: np.array(values, dtype=object)
    listed: dict[str, Any] = {}
    if has:
        listed["edge_source"] = (
            "edge",
            text([graph.sources[s] for s, _ in edges]),
            "text",
            None,
            "where it comes from",
        )
        listed["edge_target"] = ("edge", text([graph.targets[t] for _, t in edges]), "text", None, "what it leads into")
        listed["score"] = ("edge", [float(circuit.scores[e]) for e in edges], "logits", None, "score of the edge")
    return dataset(
        None,
        **listed,
        strength=("layer head", strength, "logits", (0, None), "summed score of what the head sends along the circuit"),
        faithfulness=("", ratio(kept), "share", None, "faithfulness on new pairs"),
        faithfulness_low=("", float(low), "share", None, "lower end of its 95 % interval over pairs"),
        faithfulness_high=("", float(high), "share", None, "upper end of its 95 % interval over pairs"),
        completeness=("", ratio(rest), "share", None, "faithfulness of all other edges"),
        random_faithfulness=("draw", random, "share", None, "faithfulness of random circuits of this size"),
        p=("", float(compared.get("p", np.nan)), "p", (0, 1), "random circuits as faithful"),
        n_kept=("", len(circuit), "edges", (0, graph.n_edges), "edges kept"),
        accuracy=("", float((whole > 0).mean()), "share", (0, 1), "pairs that the model gets right"),
    ).assign_attrs(
        n_edges=graph.n_edges, n_pairs=len(measured.pairs), n_layers=graph.n_layers, n_heads=graph.n_heads,
        has_mlps=int(graph.mlps), is_parallel=int(graph.parallel), task=str(circuit.about.get("task", "")),
    )  # fmt: skip


@reads("circuit", "explain")
@fitted()
def circuit_of(result: xr.Dataset) -> Circuit:
    """The circuit of a result, to run, compare and save; scores of edges that it has not are unknown."""
    about = result.attrs
    graph = Graph(int(about["n_layers"]), int(about["n_heads"]), bool(about["has_mlps"]), bool(about["is_parallel"]))
    mask, scores = np.zeros(graph.shape, bool), np.full(graph.shape, np.nan)
    names = ("edge_source", "edge_target", "score")
    for source, target, score in zip(*(result[n].values if n in result else () for n in names), strict=True):
        place = graph.place(f"{source}->{target}")
        mask[place], scores[place] = True, float(score)
    return Circuit(graph, mask, scores, {"task": about["task"]})


def drawn(result: xr.Dataset) -> "go.Figure":
    """The circuit on the lattice of heads and MLPs."""
    return circuit_of(result).figure()


def heads_figure(result: xr.Dataset) -> "go.Figure":
    """What each head sends along the circuit."""
    from workbench.figures import heads_grid

    return heads_grid(result, "strength", title=f"Heads of the circuit: {result.attrs['task']}")


def table(result: xr.Dataset) -> "pd.DataFrame":
    """Its edges, strongest first; without a circuit, what was measured."""
    import pandas as pd

    if "edge_source" not in result:
        return pd.DataFrame({name: [float(result[name])] for name in ("n_kept", "faithfulness", "accuracy")})
    frame: Any = result[["edge_source", "edge_target", "score"]].to_dataframe()
    return frame.reset_index(drop=True)


VIEW = View(
    CircuitSearch,
    question="Which few connections do this task, how sure is that, and what do they leave out?",
    asks=(
        Ask("task", "Find the edges that do"),
        Ask("wanted", "until they keep a share of"),
        Ask("ranking", "ranked by"),
    ),
    figures=(drawn, heads_figure),
    tables=(table,),
    claims=(claims.head,),
)
