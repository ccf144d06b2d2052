"""Causal check: does a claimed unit matter more than its like?

A claim names units, a metric and a way to take the units away. The check takes them away on every prompt, and does the
same to at least 50 distinct control sets: as many units of the same kind, from the same layer where it has enough, else
from layers within w of it, nearest in log output norm. With effect = metric(edited) - metric(unedited), averaged over
prompts, `p = (1 + controls at least as extreme) / (1 + controls)`, on the side that the claim fixed beforehand; its
floor is 1 / (1 + controls). Where a model has too few units (toys), each control leaves the units alone and takes a
random direction of the same norm at every position away instead, and the result says so.

What p means: among units that are as loud and as deep, how rare is this effect. It is not a statement about prompts;
those have their own interval (bootstrap, from 8 prompts on).

Source: matched random controls as in Wang et al. 2022, arXiv 2211.00593, section 4; p: Phipson and Smyth 2010.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import einsum

from workbench.catalog import Entry, Param
from workbench.errors import InputError
from workbench.hooks import ATTN_OUT, ATTN_RESULT, MLP_OUT, MLP_POST, Z
from workbench.intervene import MLP, Ablate, Attention, AttentionEdge, Head, Neurons, Steer
from workbench.metrics import KINDS, Metric, make_metric
from workbench.models.model import Model
from workbench.models.selfcheck import PADDING, READOUT
from workbench.observation import Need, Site, observe
from workbench.prompt import tokenise
from workbench.recording import measure_means, record
from workbench.results import dataset
from workbench.statistics import bootstrap_interval, monte_carlo_p
from workbench.sweeps import Base, base_run, sweep

__all__ = ["ENTRY", "Controls", "check", "checking", "controls_figure", "draw_controls", "output_norms", "run"]

N_CONTROLS = 50
ENOUGH_PROMPTS = 8
SIDES = {"lowers": "less", "raises": "greater", "changes": "greater"}


# --- controls ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Controls:
    """Control sets of units, each as large as the claim; empty sets stand for random directions.

    window: how many layers away they may lie; None for the whole model without matching, and for directions.
    """

    sets: tuple[tuple[Any, ...], ...]
    window: int | None
    matched: bool = True

    @property
    def directions(self) -> bool:
        """Whether random directions stand in for units."""
        return not self.sets[0]


def head_norm(z: torch.Tensor, site: Site) -> torch.Tensor:
    """Root mean square over positions of the norm of each head's output z W_O, `[batch, head]`."""
    weights = site.weights.W_O.float()
    gram = einsum(weights, weights, "h e d, h f d -> h e f")  # |z W_O|^2 without writing z W_O out
    squares = einsum(z.float(), gram, z.float(), "b t h e, h e f, b t h f -> b t h")
    return _mean_square(squares, site)


def block_norm(out: torch.Tensor, site: Site) -> torch.Tensor:
    """The same for a whole block, `[batch]`."""
    return _mean_square(out.float().square().sum(-1, keepdim=True), site)[:, 0]


def neuron_norm(post: torch.Tensor, site: Site) -> torch.Tensor:
    """The same for each neuron, `[batch, neuron]`."""
    return _mean_square(post.float().square() * site.weights.W_out.float().square().sum(-1), site)


def _mean_square(squares: torch.Tensor, site: Site) -> torch.Tensor:
    """Over positions >= 1 where there are any: position 0 is a sink in most models and would drown the rest."""
    mask = site.mask.clone()
    mask[:, 0] = mask.sum(-1) == 1
    mean = (squares * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return mean.clamp_min(0).sqrt()


def output_norms(model: Model, prompts: Sequence[Any], kind: type) -> np.ndarray:
    """Log of the norm of what each unit of a kind adds to the residual stream, root mean square over prompts and
    positions >= 1. Heads: `[layer, head]`; neurons: `[layer, neuron]`; blocks: `[layer, 1]`."""
    needs = {
        Head: Need((Z,), head_norm, dims="head"),
        Neurons: Need((MLP_POST,), neuron_norm, dims="neuron"),
        Attention: Need((ATTN_OUT,), block_norm),
        MLP: Need((MLP_OUT,), block_norm),
    }
    need = needs[kind]
    found = observe(model, prompts, [need], positions="none", stop=model.sizes.n_layers)[need].double()
    squares = found.square().mean(1)
    squares = squares if squares.ndim == 2 else squares[:, None]
    return 0.5 * np.log(squares.numpy() + 1e-30)


def draw_controls(
    norms: np.ndarray,
    units: Sequence[tuple[int, int]],
    n: int = N_CONTROLS,
    *,
    matched: bool = True,
    seed: int = 0,
) -> Controls:
    """At least n distinct control sets for units given as (layer, index), as tuples of such pairs.

    norms: `output_norms`. The window is the smallest that holds n other units around each claimed one. One unit: the n
    nearest in log norm. Several: each is replaced by a random one of its nearest, until n distinct sets are drawn.
    matched=False draws from the whole model instead: a check that is wrong wherever loud or late units do more, kept to
    show that. No sets at all where the model has too few units.
    """
    claimed, random = set(units), np.random.default_rng(seed)
    n_layers, width = norms.shape
    if comb(norms.size - len(claimed), len(units)) < n:
        return Controls(((),) * n, None)
    if not matched:
        others, sets = [(a, b) for a in range(n_layers) for b in range(width) if (a, b) not in claimed], {}
        while len(sets) < n:
            sets[tuple(sorted(others[i] for i in random.choice(len(others), len(units), replace=False)))] = None
        return Controls(tuple(sets), None, matched=False)
    for window in range(n_layers):
        pools = [_nearest(norms, unit, claimed, window) for unit in units]
        if min(map(len, pools)) < n and window < n_layers - 1:
            continue
        sets = _matched_sets(pools, n, random)
        if len(sets) >= n:
            return Controls(tuple(sets[:n]), window)
    return Controls(((),) * n, None)


def _nearest(norms: np.ndarray, unit: tuple[int, int], claimed: set, window: int) -> list[tuple[int, int]]:
    """Other units within a window of layers, nearest in log norm first."""
    layer, _ = unit
    layers = range(max(0, layer - window), min(len(norms), layer + window + 1))
    others = [(a, b) for a in layers for b in range(norms.shape[1]) if (a, b) not in claimed]
    return sorted(others, key=lambda other: abs(norms[other] - norms[unit]))


def _matched_sets(pools: list[list[tuple[int, int]]], n: int, random: np.random.Generator) -> list[tuple]:
    if len(pools) == 1:
        return [(unit,) for unit in pools[0][:n]]
    if sum(len(pool) for pool in pools) < len(pools) ** 2 or comb(len(set().union(*pools)), len(pools)) < n:
        return []
    found: dict[tuple, None] = {}
    for attempt in range(40 * n):
        near = 10 + attempt // (2 * n)  # wider only where the nearest do not give enough distinct sets
        chosen: list[tuple[int, int]] = []
        for pool in pools:
            free = [unit for unit in pool if unit not in chosen][:near]
            if free:
                chosen.append(free[int(random.integers(len(free)))])
        if len(chosen) == len(pools):
            found[tuple(sorted(chosen))] = None
        if len(found) >= n:
            break
    return list(found)


def _edge_controls(edges: Sequence[AttentionEdge], n_pos: int, n: int, sizes: Any, seed: int) -> Controls:
    """Other edges into the same queries, from heads of the same layer: as many, drawn at random."""
    random = np.random.default_rng(seed)
    claimed, found = set(edges), {}
    for _ in range(40 * n):
        chosen = [
            AttentionEdge(e.layer, int(random.integers(sizes.n_heads)), e.query, int(random.integers(e.query + 1)))
            for e in edges
        ]
        if not claimed & set(chosen) and len(set(chosen)) == len(chosen):
            found[tuple(sorted(chosen))] = None
        if len(found) >= n:
            break
    if len(found) < n:
        raise InputError(f"{len(found)} other edges", f"at least {n} to compare with", "Choose a later query")
    return Controls(tuple(found), 0)


# --- the check -----------------------------------------------------------------------------------------------------


def check(
    model: Model, prompts: Any, units: Sequence[Any], metric: Any = None, method: str = "zero", **options
) -> xr.Dataset:
    """Check a claim; see `checking` for the arguments. Returns the complete result."""
    *_, result = checking(model, prompts, units, metric, method, **options)
    return result


def checking(
    model: Model,
    prompts: Any,
    units: Sequence[Any],
    metric: Any = None,
    method: str = "zero",
    *,
    corrupt: Any = None,
    side: str = "changes",
    n_controls: int = N_CONTROLS,
    suggested_by: Sequence[Any] = (),
    reference: Any = None,
    matched: bool = True,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Check a claim prompt by prompt, yielding what is known so far; the last result is complete.

    prompts: one or several. units: Head, Attention, MLP, Neurons (one set of one layer) or AttentionEdge values, all of
    one kind. metric: options of `make_metric` (kind, target, against), the same for all prompts or a list with one
    for each. method: "zero", "mean" (over a reference text: `reference`, or `measure_means`), "resample" (from
    `corrupt`, a prompt of equal length for each). side: what the claim says the removal does to the metric: "lowers",
    "raises", or "changes". suggested_by: prompts that suggested the claim; they are left out where others remain.

    Returns `effect` and its interval over prompts, `effect_by_prompt` (prompt), `control_effect` (draw), `p`,
    `p_floor`, and attrs: sentence, window, controls.
    """
    units = _checked(model, units, side, n_controls, method, corrupt)
    kept, corrupts, metrics = _prompts(model, prompts, corrupt, metric, suggested_by)
    reference = measure_means(model, hooks=(units[0].hook,)) if method == "mean" and reference is None else reference
    controls = _controls(model, kept, units, n_controls, matched, seed)
    effects, controlled = [], []
    for index, tokens in enumerate(kept):
        base = base_run(model, tokens)
        measure = make_metric(model, tokens, base.logits(model), **metrics[index])
        how = reference if method != "resample" else record(model, corrupts[index], [units[0].hook])
        cells = _cells(model, base, units, controls, method, how, seed)
        own, values = base.value(model, measure), torch.full((len(cells),), torch.nan, dtype=torch.float64)
        share = (lambda done, i=index: progress((i + done) / len(kept))) if progress is not None else None
        for indices, found in sweep(model, base, cells, measure, progress=share):
            values[indices] = found.double().cpu() - own
            if index == 0 and not torch.isnan(values[0]):
                known = values[1:][~torch.isnan(values[1:])]
                if 0 < len(known) < len(cells) - 1:
                    yield _result(
                        base, [float(values[0])], [known.numpy()], units, measure, controls, side, method, how
                    )
        effects.append(float(values[0]))
        controlled.append(values[1:].numpy())
        yield _result(base, effects, controlled, units, measure, controls, side, method, how)


def _checked(
    model: Model, units: Sequence[Any], side: str, n_controls: int, method: str, corrupt: Any
) -> tuple[Any, ...]:
    units = tuple(units) if isinstance(units, Sequence) else (units,)
    if side not in SIDES:
        raise InputError(f"side={side!r}", f"one of {', '.join(SIDES)}", "Say what the claim says")
    if not units or len({type(unit) for unit in units}) > 1 or len(set(units)) != len(units):
        raise InputError(f"units {[str(u) for u in units]}", "different units of one kind", "Check them separately")
    if isinstance(units[0], Neurons) and len(units) > 1:
        raise InputError("several neuron sets", "one Neurons value with all neurons of a layer", "Join them")
    if n_controls < N_CONTROLS:
        raise InputError(f"{n_controls} controls", f"at least {N_CONTROLS}", "Ask for more")
    if method not in ("zero", "mean", "resample"):
        raise InputError(f"method={method!r}", "zero, mean or resample", "Choose one of these")
    if (method == "resample") != (corrupt is not None):
        raise InputError(
            f"method {method!r} {'without' if corrupt is None else 'with'} a corrupt prompt",
            "a corrupt prompt for resample only",
            "Give one, or choose zero or mean",
        )
    for unit in units:
        unit.check(model)
    return units


def _prompts(model: Model, prompts: Any, corrupt: Any, metric: Any, suggested_by: Sequence[Any]):
    """Tokens of prompts and of their corrupt partners, and metric options, without prompts that suggested the claim."""
    many = isinstance(prompts, list | tuple) and not all(isinstance(p, int) for p in prompts)
    tokens = [tokenise(model, p) for p in (prompts if many else [prompts])]
    corrupts = (
        [None] * len(tokens) if corrupt is None else [tokenise(model, c) for c in (corrupt if many else [corrupt])]
    )
    metrics = list(metric) if isinstance(metric, list | tuple) else [dict(metric or {})] * len(tokens)
    if not len(tokens) == len(corrupts) == len(metrics):
        raise InputError(
            f"{len(tokens)} prompts, {len(corrupts)} corrupt ones and {len(metrics)} metrics",
            "as many of each",
            "Pair them",
        )
    for one, other in zip(tokens, corrupts, strict=True):
        if other is not None and len(one) != len(other):
            raise InputError(f"prompts of {len(one)} and {len(other)} tokens", "equal lengths", "Change the words")
    seen = {tokenise(model, p).ids for p in suggested_by}
    fresh = [i for i, t in enumerate(tokens) if t.ids not in seen] or list(range(len(tokens)))
    return [tokens[i] for i in fresh], [corrupts[i] for i in fresh], [metrics[i] for i in fresh]


def _controls(model: Model, tokens: Sequence[Any], units: tuple, n: int, matched: bool, seed: int) -> Controls:
    kind = type(units[0])
    if kind is AttentionEdge:
        return _edge_controls(units, min(map(len, tokens)), n, model.sizes, seed)
    norms = output_norms(model, tokens, kind)
    if kind is Neurons:
        pairs = [(units[0].layer, neuron) for neuron in units[0].neurons]
        found = draw_controls(norms, pairs, n, matched=matched, seed=seed)
        return found
    pairs = [(unit.layer, unit.head if kind is Head else 0) for unit in units]
    return draw_controls(norms, pairs, n, matched=matched, seed=seed)


def _as_units(kind: type, pairs: Sequence[Any]) -> list[Any]:
    """Units of (layer, index) pairs; edges are units already."""
    if kind is AttentionEdge:
        return list(pairs)
    if kind is Neurons:
        layers = sorted({layer for layer, _ in pairs})
        return [Neurons(layer, tuple(n for a, n in pairs if a == layer)) for layer in layers]
    return [Head(*pair) if kind is Head else kind(pair[0]) for pair in pairs]


def _cells(
    model: Model, base: Base, units, controls: Controls, method: str, reference: Any, seed: int
) -> list[list[Any]]:
    """The claim's own edits, and those of every control."""
    how = (method, None if method == "zero" else reference)
    own = [Ablate(unit, *how) for unit in units]
    if controls.directions:
        return [own, *_direction_cells(model, base, units, own, len(controls.sets), seed)]
    kind = type(units[0])
    return [own, *([Ablate(unit, *how) for unit in _as_units(kind, pairs)] for pairs in controls.sets)]


def _direction_cells(model: Model, base: Base, units, own: list[Any], n: int, seed: int) -> list[list[Steer]]:
    """Random directions, as far at every position as the ablation moves the sublayer's output there."""
    generator = torch.Generator().manual_seed(seed)
    cells: list[list[Steer]] = [[] for _ in range(n)]
    for unit, edit in zip(units, own, strict=True):
        hook = {Head: ATTN_RESULT, Attention: ATTN_OUT, MLP: MLP_OUT, Neurons: MLP_OUT}[type(unit)]
        before, after = (
            record(model, base.tokens, [hook], [unit.layer], interventions=edits).values[hook, unit.layer]
            for edits in ((), (edit,))
        )
        size = (after - before).norm(dim=-1, keepdim=True)  # pos one
        for cell in cells:
            direction = torch.randn(model.sizes.d_model, generator=generator)
            cell.append(Steer(unit.layer, size * direction / direction.norm(), 1.0, hook))
    return cells


def _result(
    base: Base, effects, controlled, units, metric: Metric, controls: Controls, side, method, reference
) -> xr.Dataset:
    by_prompt = np.array(effects)
    by_control = np.mean(controlled, axis=0)
    effect = float(by_prompt.mean())
    extreme = np.abs if side == "changes" else (lambda x: x)
    p = float(monte_carlo_p(extreme(effect), extreme(by_control), SIDES[side]))
    enough = len(by_prompt) >= ENOUGH_PROMPTS
    low, high = bootstrap_interval(by_prompt) if enough else (np.nan, np.nan)
    floor = 1 / (1 + len(by_control))
    result = dataset(
        base.observation,
        effect=("", effect, metric.units, None, "effect of the ablation"),
        effect_low=("", float(low), metric.units, None, "95 % interval over prompts, low"),
        effect_high=("", float(high), metric.units, None, "95 % interval over prompts, high"),
        effect_by_prompt=("prompt", by_prompt, metric.units, None, "effect by prompt"),
        control_effect=("draw", by_control, metric.units, None, "effect of the controls"),
        p=("", p, "probability", (0, 1), "share of controls at least as extreme"),
        p_floor=("", floor, "probability", (0, 1), "smallest p that so many controls can give"),
    )
    names = ", ".join(map(str, units))
    result.attrs.update(
        units=names,
        metric=metric.describe(base.observation.vocabulary),
        method=method if method == "zero" else f"{method} of {reference}",
        side=side,
        controls=_kind_of_controls(controls, units),
        window=-1 if controls.window is None else controls.window,
    )
    result.attrs["sentence"] = _sentence(result, len(by_prompt))
    return result


def _kind_of_controls(controls: Controls, units: Sequence[Any]) -> str:
    if controls.directions:
        return "random directions"
    if isinstance(units[0], AttentionEdge):
        return "other edges"
    return "matched units" if controls.matched else "unmatched units"


def _sentence(result: xr.Dataset, n_prompts: int) -> str:
    """One plain sentence: what was done, what happened, against what, how rare."""
    a, effect, p = result.attrs, float(result["effect"]), float(result["p"])
    n, units = result.sizes["draw"], result["effect"].attrs["units"]
    known = not np.isnan(float(result["effect_low"]))
    interval = (
        f" (95 % interval {float(result['effect_low']):+.3g} to {float(result['effect_high']):+.3g})" if known else ""
    )
    against = {
        "random directions": f"{n} random directions of the same norm (the model has too few units to compare with)",
        "unmatched units": f"{n} unmatched sets",
        "other edges": f"{n} random sets of other edges into the same queries, of heads of the same layers,",
        "matched units": f"{n} sets of the units nearest in output norm, from "
        + ("the same layer" if a["window"] == 0 else f"layers within {a['window']}"),
    }[a["controls"]]
    center = float(result["control_effect"].mean())
    floor = ", the smallest that so many can give" if p <= float(result["p_floor"]) + 1e-12 else ""
    word = "more" if p <= 0.05 else "no more"
    tail = {"lowers": "lowers it", "raises": "raises it", "changes": "changes it"}[a["side"]]
    return (
        f"Removing {a['units']} ({a['method'].split(' of ')[0]}) changes the {a['metric']} by {effect:+.3g} {units}"
        f"{interval} on {n_prompts} prompt{'s' if n_prompts > 1 else ''}; {against} change it by {center:+.3g} on "
        f"average: it {tail} {word} than its like (p = {p:.3g}{floor})."
    )


# --- the entry -----------------------------------------------------------------------------------------------------


def study(
    model: Model,
    tokens: Any,
    *,
    kind: str = "head",
    layer: int = 0,
    head: int = 0,
    neuron: int = 0,
    query: int = -1,
    key: int = 0,
    method: str = "zero",
    corrupt: str = "",
    metric: str = "logit difference",
    target: str = "",
    against: str = "",
    side: str = "changes",
    controls: int = N_CONTROLS,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """The check of one unit on the current prompt."""
    if tokens is None:
        raise InputError("causal-check without a prompt", "a prompt", "Give one")
    units = {
        "head": lambda: Head(layer, head),
        "attention": lambda: Attention(layer),
        "mlp": lambda: MLP(layer),
        "neuron": lambda: Neurons(layer, (neuron,)),
        "edge": lambda: AttentionEdge(layer, head, query % len(tokens), key % len(tokens)),
    }
    yield from checking(
        model,
        tokens,
        [units[kind]()],
        {"kind": metric, "target": target, "against": against},
        method,
        corrupt=corrupt or None,
        side=side,
        n_controls=controls,
        seed=seed,
        progress=progress,
    )


def controls_figure(result: xr.Dataset):
    """The effect among those of its controls."""
    import plotly.graph_objects as go

    from workbench.figures import apply

    units = result["effect"].attrs["units"]
    figure = go.Figure(
        go.Histogram(x=result["control_effect"].values.tolist(), nbinsx=30, name="controls", marker_color="#9aa0a6")
    )
    effect = float(result["effect"])
    figure.add_vline(x=effect, line={"color": "#c0392b", "width": 3}, annotation_text=result.attrs["units"])
    figure.update_layout(
        title=f"{result.attrs['units']} among its like",
        xaxis_title=f"effect on the {result.attrs['metric']} ({units})",
        yaxis_title="control sets",
    )
    return apply(figure)


ENTRY = Entry(
    name="causal-check",
    title="Causal check",
    source="matched random controls (arXiv 2211.00593, section 4); Phipson and Smyth 2010",
    limits="An ablated unit leaves the rest of the model in a state it may never see otherwise; p compares with units "
    "as loud and as deep, on these prompts only.",
    definition="effect = metric with the unit removed - metric as it is; p = (1 + controls at least as extreme) / "
    "(1 + controls), controls being as many units of the same kind, of nearest log output norm, from the same or "
    "neighbouring layers.",
    scope="study",
    study=study,
    figures=(controls_figure,),
    params=(
        Param("kind", str, "head", "kind of unit", choices=("head", "attention", "mlp", "neuron", "edge")),
        Param("layer", int, 0, "layer of the unit", low=0),
        Param("head", int, 0, "head, for heads and edges", low=0),
        Param("neuron", int, 0, "neuron, for neurons", low=0),
        Param("query", int, -1, "query position, for edges"),
        Param("key", int, 0, "key position, for edges"),
        Param("method", str, "zero", "how it is removed", choices=("zero", "mean", "resample")),
        Param("corrupt", str, "", "prompt of equal length to resample from"),
        Param("metric", str, "logit difference", "what is measured", choices=KINDS),
        Param("target", str, "", "token whose prediction is measured; empty: the model's top token"),
        Param("against", str, "", "token it is compared with"),
        Param("side", str, "changes", "what the claim says the removal does to the metric", choices=tuple(SIDES)),
        Param("controls", int, N_CONTROLS, "number of control sets", low=N_CONTROLS, high=1000),
        Param("seed", int, 0, "seed of random controls", low=0),
    ),
    requires=(READOUT, PADDING),
    cost=lambda sizes, n_tokens, controls=N_CONTROLS, **_: 0.4 * controls + 2,
)

run = ENTRY.run
