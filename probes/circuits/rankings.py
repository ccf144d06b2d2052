"""Rankings of a task's nodes: heads and MLPs, each at all positions, scored by what they add to the clean run's metric.

attribution patching    -(corrupt - clean) * gradient at the clean run, summed over the node
activation patching     metric(clean) - metric(clean run with the node's corrupt output)
direct attribution      the node's share of the logit difference at the last position
routes                  strength on the clean prompt's route into the last position: sum of its kept shares, 0 or more
random                  standard normal

Source: Syed et al. 2023, arXiv 2310.10348; Ferrando & Voita 2024, arXiv 2403.00824; as baselines in arXiv 2504.13151.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probes.circuits.attribution_patching import node_estimates
from probes.circuits.direct_logit_attribution import DirectLogitAttribution
from probes.circuits.prompt_pairs import PairRuns, pair_runs
from probes.routes.extraction import extract
from probes.routes.flow_routes import FlowRoutes
from probes.stimuli import ioi_prompts, names_of
from workbench.analysis.run import Progress
from workbench.arguments import fitted, shown
from workbench.errors import InputError
from workbench.intervene import Patch
from workbench.models.hooks import MLP_OUT, Hook, Z
from workbench.models.model import Model
from workbench.observation.recording import Recording, record
from workbench.observation.sweeps import values_of

__all__ = ["RANKINGS", "Task", "ioi_tasks", "n_nodes", "node_patches", "node_sites", "rank", "task_of", "tasks_of"]

RANKINGS = ("attribution patching", "activation patching", "direct attribution", "routes", "random")


@dataclass(frozen=True, eq=False)
class Task(PairRuns):
    """One pair of prompts, its metric, its two runs, and what every node does in the corrupt one."""

    source: Recording = field(repr=False, kw_only=True)


def task_of(model: Model, runs: PairRuns) -> Task:
    """A task from a pair that has run."""
    return Task(**vars(runs), source=record(model, runs.pair.corrupt, node_sites(model)))


@fitted()
def tasks_of(model: Model, examples: Sequence[Any]) -> list[Task]:
    """Tasks from (clean, corrupt, target, against): the logit difference of the two tokens."""
    pairs = [_four(one) for one in examples]
    return [task_of(model, pair_runs(model, *pair, "logit difference", *answers)) for pair, answers in pairs]


def _four(example: Any) -> tuple[tuple[Any, Any], tuple[str, str]]:
    """The prompts of an example, and its answers. InputError for what is none."""
    four = tuple(example) if isinstance(example, list | tuple) else ()
    if len(four) != 4 or not all(isinstance(answer, str) for answer in four[2:]):
        raise InputError(f"the example {shown(example)}", "(clean, corrupt, target, against)", "Give these four")
    return four[:2], four[2:]


def ioi_tasks(model: Model, n: int, seed: int) -> list[Task]:
    """Indirect object identification, n pairs: in the corrupt prompt the other one of the two gives."""
    found = ioi_prompts(n, seed, names=names_of(model))
    return tasks_of(model, [(one["task"], one["swapped"], one["answer"], one["wrong"]) for one in found])


def node_sites(model: Model) -> list[Hook]:
    """Where the nodes' outputs stand."""
    return [Z, MLP_OUT] if model.sizes.d_mlp else [Z]


def n_nodes(model: Model) -> int:
    """Heads first, by layer, then MLPs."""
    sizes = model.sizes
    return sizes.n_layers * (sizes.n_heads + (1 if sizes.d_mlp else 0))


@fitted()
def rank(
    model: Model,
    tasks: Sequence[Task],
    by: str,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Scores of all nodes, mean over tasks, in the order of `n_nodes`. by: one of `RANKINGS`."""
    if by not in RANKINGS:
        raise InputError(f"the ranking {by!r}", f"one of {', '.join(RANKINGS)}", "Choose one of these")
    if seed < 0:
        raise InputError(f"seed={seed}", "a seed from 0 on", "Choose one")
    if not tasks and by != "random":
        raise InputError("no tasks to rank by", "at least one", "Give what tasks_of() returns")
    if by == "random":
        return np.random.default_rng(seed).normal(size=n_nodes(model))
    score = {
        "attribution patching": _attribution,
        "activation patching": _activation,
        "direct attribution": _direct,
        "routes": _routes,
    }[by]
    scores = []
    for index, task in enumerate(tasks):
        scores.append(score(model, task))
        if progress is not None:
            progress((index + 1) / len(tasks))
    return np.mean(scores, axis=0)


def _attribution(model: Model, task: Task) -> np.ndarray:
    heads, mlps = node_estimates(model, task.source, task.pair.clean, task.metric)
    return -np.concatenate([heads.ravel(), mlps])


def _activation(model: Model, task: Task) -> np.ndarray:
    cells = [node_patches(model, task.source, [node]) for node in range(n_nodes(model))]
    return task.clean.value(model, task.metric) - values_of(model, task.clean, cells, task.metric).double().numpy()


def _direct(model: Model, task: Task) -> np.ndarray:
    if task.metric.kind != "logit difference":
        raise InputError(f"direct attribution of a {task.metric.kind}", "a logit difference", "Choose that metric")
    names = task.metric.tokens(model.vocabulary)
    asked = DirectLogitAttribution(target=names["target_ids"], against=names["against_ids"])
    found = asked.run(model, task.pair.clean)
    mlps = found["attribution"].values[found["kind"].values == "mlp"]
    return np.concatenate([found["head_attribution"].values.ravel(), mlps])


def _routes(model: Model, task: Task) -> np.ndarray:
    graph = extract(FlowRoutes().run(model, task.pair.clean))
    layer, head, weight = (graph[name].values for name in ("edge_layer", "edge_head", "weight"))
    heads, mlps = np.zeros((model.sizes.n_layers, model.sizes.n_heads)), np.zeros(model.sizes.n_layers)
    kind = graph["kind"].values
    np.add.at(heads, (layer[kind == "attention"], head[kind == "attention"]), weight[kind == "attention"])
    np.add.at(mlps, layer[kind == "mlp"], weight[kind == "mlp"])
    return np.concatenate([heads.ravel(), mlps if model.sizes.d_mlp else mlps[:0]])


def node_patches(model: Model, source: Recording, nodes: Sequence[int]) -> list[Any]:
    """Nodes set to their output in another run, one patch per layer and kind."""
    sizes = model.sizes
    heads: dict[int, list[int]] = {}
    for node in nodes:
        if node < sizes.n_layers * sizes.n_heads:
            heads.setdefault(node // sizes.n_heads, []).append(node % sizes.n_heads)
    mlps = [node - sizes.n_layers * sizes.n_heads for node in nodes if node >= sizes.n_layers * sizes.n_heads]
    return [Patch(Z, layer, source, None, tuple(chosen)) for layer, chosen in heads.items()] + [
        Patch(MLP_OUT, layer, source) for layer in mlps
    ]
