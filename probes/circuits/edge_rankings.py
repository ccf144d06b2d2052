"""Rankings of edges beside each other: how few edges of the graph of heads and MLPs carry a task."""

from collections.abc import Generator
from hashlib import sha256
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr

from probes.circuits.graph.faithfulness import ABLATIONS, Measured, curves
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.parts import stability
from probes.circuits.graph.rankings import RANKINGS, TOGETHER, forwards, rank
from probes.circuits.graph.selection import BUDGETS, SELECTIONS, calibrated, n_edges, ordered, select
from probes.circuits.graph.task_texts import TASKS
from probes.circuits.graph.tasks import Task, read_task, task
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.progress import part
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.errors import InputError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, PARTS, READOUT, RESIDUAL
from workbench.words import counted, hundredths

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["VIEW", "EdgeRankings", "TaskName", "need_task", "pairs_of", "task_digest"]

TaskName = Annotated[str, Choice(tuple(TASKS), files=True), "a task, or a file of clean, corrupt, answer, wrong"]


def task_digest(name: str) -> str:
    """What the pairs of a user's file are; empty for a task by its name, and for a file that is not there."""
    path = Path(name)
    return "" if name in TASKS or not path.is_file() else sha256(path.read_bytes()).hexdigest()


def need_task(name: str) -> None:
    """InputError for a name that is neither a task's nor a file's."""
    if name not in TASKS and not exists(name):
        raise InputError(f"the task {name!r}", f"one of {', '.join(TASKS)}, or a file of pairs", "Correct the name")


def pairs_of(model: Model, name: str, **sizes: int) -> Task:
    """The pairs of a task by its name, or of a file. InputError for what is neither."""
    need_task(name)
    return task(model, name, **sizes) if name in TASKS else read_task(model, name, **sizes)


class EdgeRankings(
    Study, name="edge-rankings", title="Rankings of edges", requires=(READOUT, PADDING, RESIDUAL, PARTS)
):
    """How few edges between embedding, heads, MLPs and logits carry a task, and which ranking finds them.

    Definition: f(k) = (m(circuit of k edges) - m(no edge)) / (m(model) - m(no edge)), m the mean logit difference of
    answer and wrong answer; CPR is the area under f over the budget, CMD that between f and 1, CMD-log the same over
    the logarithm of the budget. Edges lead from what a source adds to the residual stream to one input of one head
    (query, key, value), MLP or the logits; those outside the circuit bring what they bring on the counterfactual prompt
    (or its mean, or nothing). Ranked on some pairs, measured on others (see `probes.circuits.graph`). Selection
    "calibrated" sets the share that is kept by score on a fifth as many pairs, apart from both.

    Limits: A faithful circuit need not be the only one, nor what the model uses on other prompts. Where heads are
    normed together before they are compared (OLMo 2), an edge into one query moves the others. Templates are a small
    world. Each budget is a pass over every pair.

    Source: Mueller et al. 2025, arXiv 2504.13151 (MIB: graph, measures); Hanna et al. 2024, arXiv 2403.17806 (EAP-IG);
    Jafari et al. 2025, arXiv 2508.21258 (RelP). CMD-log and the refilled budget are ours.

    Returns: `faithfulness` (group, threshold), `cpr`, `cmd`, `cmd_log` (group), each with `_low` and `_high` over
    pairs; `cost` (group), forward passes a pair; `stability` (group, threshold), Jaccard overlap of what two halves of
    the ranking pairs choose, NaN of rankings that score all pairs together; `n_kept` (group, threshold);
    `model_metric`, `empty_metric` (prompt).
    """

    prompted: ClassVar[bool] = False
    task: TaskName = "indirect object"
    rankings: Annotated[str, f"which, apart by commas: {', '.join(RANKINGS)}"] = "RelP, EAP-IG, EAP, random"
    selection: Annotated[str, Choice((*SELECTIONS, "calibrated")), "how edges are kept by their scores"] = "mixed"
    refill: Annotated[bool, "replace edges on no way from input to logits by the next ones"] = True
    ablation: Annotated[str, Choice(ABLATIONS), "what the other edges bring"] = "patched"
    pairs: Annotated[int, Range(1, 500), "pairs to rank on"] = 8
    tested: Annotated[int, Range(1, 1000), "other pairs to measure on"] = 16
    seed: Annotated[int, Range(0, 2**31 - 1), "draws the pairs and the random ranking"] = 0

    def artifact(self, model: Model) -> str | None:
        """What the pairs of a user's file are: an edited file asks something else."""
        return task_digest(self.task)

    def idle(self) -> dict[str, str]:
        """What calibrates fills its budget in any case."""
        return {"refill": "another selection"} if self.selection == "calibrated" else {}

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """One ranking after the other."""
        names = [name.strip() for name in self.rankings.split(",") if name.strip()]
        unknown = [name for name in names if name not in RANKINGS]
        if unknown or not names:
            got = repr(unknown[0]) if unknown else "none"
            raise InputError(f"the ranking {got}", f"some of {', '.join(RANKINGS)}", "Correct it")
        apart = max(1, self.pairs // 5) if self.selection == "calibrated" else 0
        found = pairs_of(model, self.task, train=self.pairs, validation=apart, test=self.tested, seed=self.seed)
        calibrating = Measured(model, found.validation, self.ablation) if apart else None
        graph, measured = Graph.of(model.sizes), Measured(model, found.test, self.ablation)
        circuits: dict[str, list[np.ndarray]] = {}
        alike: dict[str, np.ndarray] = {}
        for index, name in enumerate(names):
            first, some, last = ((index + share) / len(names) for share in (0, 0.2, 1))
            scores = rank(model, found.train, name, seed=self.seed, progress=part(progress, first, some))
            circuits[name] = self._chosen(graph, scores, calibrating)
            alike[name] = np.full(len(BUDGETS), np.nan) if name in TOGETHER else self._alike(graph, scores)
            result = curves(measured, circuits, progress=part(progress, some, last))
            yield self._told(result, found, graph, np.stack(list(alike.values())))

    def _chosen(self, graph: Graph, scores: np.ndarray, calibrating: Measured | None) -> list[np.ndarray]:
        """Circuits by budget."""
        if calibrating is not None:
            return calibrated(graph, scores, calibrating.faithfulness)
        order = ordered(graph, scores, self.selection, seed=self.seed)
        return [select(graph, order, n_edges(b, graph), refill=self.refill) for b in BUDGETS]

    def _alike(self, graph: Graph, scores: np.ndarray) -> np.ndarray:
        """Of two halves of the pairs, by budget; NaN of a single pair."""
        if len(scores) < 2:
            return np.full(len(BUDGETS), np.nan)

        def choose(some: np.ndarray) -> list[np.ndarray]:
            how = "mixed" if self.selection == "calibrated" else self.selection
            order = ordered(graph, some, how, seed=self.seed)
            return [select(graph, order, n_edges(b, graph), refill=False) for b in BUDGETS]

        return stability(scores, choose, draws=2, seed=self.seed)

    def _told(self, result: xr.Dataset, found: Task, graph: Graph, alike: np.ndarray) -> xr.Dataset:
        names = [str(name) for name in result["group"].values]
        costs = [forwards(name, graph.n_edges, self.pairs) for name in names]
        more = dataset(
            None,
            coords={name: result[name].values for name in ("group", "threshold")},
            cost=("group", costs, "forwards", (0, None), "cost of the ranking, forward passes a pair"),
            stability=("group threshold", alike, "share", (0, 1), "edges that two halves of the pairs both choose"),
        )
        result = result.merge(more)
        return result.assign_attrs(
            task=found.name, pairs=found.describe(), n_edges=graph.n_edges, summary=found.noted(_summary(result, found))
        )

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Rankings, and three passes for every budget of every ranking and pair."""
        graph, names = Graph.of(sizes), [name.strip() for name in self.rankings.split(",")]
        ranked = sum(max(10.0, forwards(name, graph.n_edges, self.pairs)) for name in names)
        return ranked * self.pairs + float(len(names) * 3 * (len(BUDGETS) - 1) * self.tested)


def _summary(result: xr.Dataset, found: Task) -> str:
    pairs, right = counted(result.attrs["n_pairs"], "pair"), float(result["accuracy"])
    solved = f"The model gets {right:.0%} of {pairs} of {found.name!r} right."
    values = result["cmd_log"].values
    if not np.isfinite(values).all():
        return f"{solved} Its answers are not clearly better than with no edge kept: nothing to be faithful to."
    said = []
    for index in np.argsort(values):
        low, high = (float(result[f"cmd_log_{end}"].values[index]) for end in ("low", "high"))
        between = f" [{hundredths(low)}, {hundredths(high)}]" if np.isfinite(low) else ""
        said.append(f"{result['group'].values[index]} {hundredths(values[index])}{between}")
    return f"{solved} CMD-log of circuits of their edges, 0 is best: {', '.join(said)}."


def curve_figure(result: xr.Dataset) -> "go.Figure":
    """Faithfulness by share of edges kept, one line a ranking."""
    from workbench.figures import series

    title = f"Faithfulness of circuits of edges: {result.attrs['task']}"
    figure = series(result, "faithfulness", "threshold", by="group", log_x=True, title=title)
    return figure.update_xaxes(title_text="share of edges kept")


def area_figure(result: xr.Dataset) -> "go.Figure":
    """CMD-log of every ranking."""
    from workbench.figures import bars

    return bars(result, "cmd_log", "group", title="CMD-log: distance from the model, over budgets (0 is best)")


def table(result: xr.Dataset) -> "pd.DataFrame":
    """One row a ranking: its areas, its cost, and f at three budgets."""
    frame: Any = result[["cpr", "cmd", "cmd_log", "cost"]].reset_coords(drop=True).to_pandas()
    frame = frame.rename_axis("ranking")
    for share in (0.001, 0.01, 0.1):
        frame[f"f at {share:g}"] = result["faithfulness"].sel(threshold=share).values
    return frame


VIEW = View(
    EdgeRankings,
    question="How few edges between heads and MLPs carry the task, and which ranking finds them?",
    asks=(
        Ask("task", "Rank all edges on"),
        Ask("rankings", "by"),
        Ask("pairs", "with", unit="pairs of prompts"),
    ),
    figures=(curve_figure, area_figure),
    tables=(table,),
)
