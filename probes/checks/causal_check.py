"""Causal check: does a claimed unit matter more than its like?

A claim names units, a metric and a way to take the units away. The check takes them away on every prompt, and does the
same to at least 50 distinct control sets of units that are as loud and as deep (see `matched_controls`). With effect =
metric(edited) - metric(unedited), averaged over prompts, `p = (1 + controls at least as extreme) / (1 + controls)`, on
the side that the claim fixed beforehand; its floor is 1 / (1 + controls). Where a model has too few units (toys; whole
blocks of most models), each control leaves the units alone and takes a random direction of the same norm at every
position away instead, and the result says so; the few units that there are, are removed one by one and counted beside
it. Where nothing nearby is as loud as the claim, the result says by how much.

What p means: among units that are as loud and as deep, how rare is this effect. It is not a statement about prompts;
those have their own interval (bootstrap, from 8 prompts on).

How units are removed: by zero, by their mean over a reference text, or by what they are on another prompt. An edge
loses its weight; a key of a head is hidden before the softmax, and the rest of each row grows.

Source: matched random controls as in Wang et al. 2022, arXiv 2211.00593, section 4; p: Phipson and Smyth 2010.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from probes.attention.induction import repeated_tokens as induction
from probes.checks.matched_controls import N_CONTROLS, Controls, atoms, matched_controls
from workbench.analysis.legacy import Entry, Param
from workbench.analysis.results import dataset
from workbench.errors import InputError
from workbench.intervene import (
    MLP,
    Ablate,
    Attention,
    AttentionEdge,
    AttentionKey,
    Head,
    Neurons,
    Residual,
    Steer,
    units_of,
)
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, MLP_OUT, RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Tokens, tokenise
from workbench.models.selfcheck import PADDING, READOUT
from workbench.observation.metrics import KINDS, Metric, make_metric
from workbench.observation.recording import measure_means, record
from workbench.observation.sweeps import Base, base_run, sweep
from workbench.statistics import bootstrap_interval, monte_carlo_p

__all__ = ["ENTRY", "check", "checking", "controls_figure", "repeated_tokens", "run"]

ENOUGH_PROMPTS = 8
SIDES = {"lowers": "less", "raises": "greater", "changes": "greater"}
METHODS = ("zero", "mean", "resample")
STIMULI = ("prompt", "repeated tokens")
_OF_EACH = {  # what is measured of several prompts with unlike tokens
    "logit difference": "logit of each prompt's target",
    "log-probability": "log-probability of each prompt's target",
    "repetition": "mean log-probability of what came next the last time (repeated tokens)",
}
_REPEATED = 24  # tokens of a sequence that repeats
_NAMED = 6  # units that a sentence names
_MUCH_LOUDER = 1.5  # times its controls, from where the sentence says so
# Where a random direction of equal norm stands in for what a unit's removal changes.
_CHANGED = {
    Head: ATTN_RESULT,
    AttentionEdge: ATTN_RESULT,
    AttentionKey: ATTN_RESULT,
    Attention: ATTN_OUT,
    MLP: MLP_OUT,
    Neurons: MLP_OUT,
    Residual: RESID_PRE,
}


def check(
    model: Model, prompts: Any, units: Sequence[Any], metric: Any = None, method: str = "zero", **options
) -> xr.Dataset:
    """Check a claim; see `checking` for the arguments. Returns the complete result."""
    *_, result = checking(model, prompts, units, metric, method, **options)
    return result


def checking(
    model: Model,
    prompts: Any,
    units: Any,
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

    prompts: one or several. units: values of one kind (Head, Attention, MLP, Neurons, AttentionEdge, AttentionKey,
    Residual with a position), or a text as `units_of` reads it. metric: options of `make_metric` (kind, target,
    against, position), the same for all prompts or a list with one for each; by default the log-probability of the top
    token at the last position. method: "zero", "mean" (over a reference text: `reference`, or `measure_means`),
    "resample" (from `corrupt`, a prompt of equal length for each). side: what the claim says the removal does to the
    metric: "lowers", "raises", or "changes". suggested_by: prompts that suggested the claim; they are left out where
    others remain.

    Returns `effect` and its interval over prompts, `effect_by_prompt` (prompt), `control_effect` (draw), `p`,
    `p_floor`, `louder`, and attrs: sentence, window, controls; where directions stand in for units, `peer_effect`
    (component), the effect of every other unit of the kind.
    """
    units = _checked(model, units, side, n_controls, method, corrupt)
    kept, corrupts, metrics = _prompts(model, prompts, corrupt, metric, suggested_by)
    _need_inside(units, kept)
    hook = units[0].hook
    reference = measure_means(model, hooks=(hook,)) if method == "mean" and reference is None else reference
    bases = [base_run(model, tokens) for tokens in kept]
    measures = [_measure(model, base, options) for base, options in zip(bases, metrics, strict=True)]
    last = max(max(measure.needed(len(tokens))) for measure, tokens in zip(measures, kept, strict=True))
    parts = atoms(units)
    controls = matched_controls(model, kept, parts, n_controls, last=last, matched=matched, seed=seed)
    end = 1 + len(controls.sets)
    effects, controlled, peered = [], [], []
    for index, (base, measure) in enumerate(zip(bases, measures, strict=True)):
        how = reference if method != "resample" else record(model, corrupts[index], [hook])
        cells = _cells(model, base, parts, controls, method, how, seed)
        cells += [[Ablate(unit, *_how(method, how))] for unit in controls.peers]
        own, values = base.value(model, measure), torch.full((len(cells),), torch.nan, dtype=torch.float64)
        share = (lambda done, i=index: progress((i + done) / len(kept))) if progress is not None else None
        claim = (bases[: index + 1], units, measures[: index + 1], controls, side, method, how)
        for indices, found in sweep(model, base, cells, measure, progress=share):
            values[indices] = found.double().cpu() - own
            if index == 0 and not torch.isnan(values[0]):
                known = values[1:end][~torch.isnan(values[1:end])]
                if len(known) > 0 and values.isnan().any():
                    yield _result([float(values[0])], [known.numpy()], [], *claim)
        effects.append(float(values[0]))
        controlled.append(values[1:end].numpy())
        peered.append(values[end:].numpy())
        yield _result(effects, controlled, peered, *claim)


def _how(method: str, reference: Any) -> tuple[str, Any]:
    """What an ablation takes beside its unit."""
    return method, None if method == "zero" else reference


def _measure(model: Model, base: Base, options: dict[str, Any]) -> Metric:
    position = int(options.get("position", -1))
    if not -len(base.tokens) <= position < len(base.tokens):
        raise InputError(f"position {position}", f"positions from 0 to {len(base.tokens) - 1}", "Choose one inside")
    return make_metric(model, base.tokens, base.logits(model, position), **{"kind": "log-probability", **options})


def _checked(model: Model, units: Any, side: str, n_controls: int, method: str, corrupt: Any) -> tuple[Any, ...]:
    units = units_of(units) if isinstance(units, str) else tuple(units if isinstance(units, Sequence) else (units,))
    if side not in SIDES:
        raise InputError(f"side={side!r}", f"one of {', '.join(SIDES)}", "Say what the claim says")
    parts = atoms(units)
    if not units or len({type(unit) for unit in units}) > 1 or len(set(parts)) != len(parts):
        raise InputError(f"units {[str(u) for u in units]}", "different units of one kind", "Check them separately")
    if n_controls < N_CONTROLS:
        raise InputError(f"{n_controls} controls", f"at least {N_CONTROLS}", "Ask for more")
    if method not in METHODS:
        raise InputError(f"method={method!r}", "zero, mean or resample", "Choose one of these")
    if (method == "resample") != (corrupt is not None):
        raise InputError(
            f"method {method!r} {'without' if corrupt is None else 'with'} a corrupt prompt",
            "a corrupt prompt for resample only",
            "Give one, or choose zero or mean",
        )
    for unit in units:
        unit.check(model)
    if method != "zero" and isinstance(units[0], AttentionEdge | AttentionKey):
        raise InputError(f"{units[0]} by {method}", "zero: attention is taken away, not replaced", "Choose zero")
    if isinstance(units[0], Residual) and any(unit.pos is None for unit in units):
        raise InputError(f"{units[0]} without a position", "a state such as L12 pos 5", "Name its position")
    return units


def _need_inside(units: Sequence[Any], prompts: Sequence[Tokens]) -> None:
    """InputError for a unit at a position that a prompt does not have."""
    shortest = min(map(len, prompts))
    for unit in units:
        at = [getattr(unit, name) for name in ("pos", "query", "key") if hasattr(unit, name)]
        if at and max(at) >= shortest:
            raise InputError(f"{unit}", f"positions from 0 to {shortest - 1}", "Choose one inside every prompt")


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


def _cells(
    model: Model, base: Base, units, controls: Controls, method: str, reference: Any, seed: int
) -> list[list[Any]]:
    """The claim's own edits, and those of every control."""
    how = _how(method, reference)
    own = [Ablate(unit, *how) for unit in units]
    if controls.directions:
        return [own, *_direction_cells(model, base, units, own, len(controls.sets), seed)]
    return [own, *([Ablate(unit, *how) for unit in one] for one in controls.sets)]


def _direction_cells(model: Model, base: Base, units, own: list[Any], n: int, seed: int) -> list[list[Steer]]:
    """Random directions, as far at every position as the ablation moves what it changes there."""
    generator = torch.Generator().manual_seed(seed)
    cells: list[list[Steer]] = [[] for _ in range(n)]
    hook = _CHANGED[type(units[0])]
    for unit, edit in zip(units, own, strict=True):
        before, after = (
            record(model, base.tokens, [hook], [unit.layer], interventions=edits).values[hook, unit.layer]
            for edits in ((), (edit,))
        )
        size = (after - before).norm(dim=-1, keepdim=True)  # pos one
        for cell in cells:
            direction = torch.randn(model.sizes.d_model, generator=generator)
            cell.append(Steer(unit.layer, size * direction / direction.norm(), 1.0, hook))
    return cells


# --- the result ------------------------------------------------------------------------------------------------------


def _result(
    effects, controlled, peered, bases: Sequence[Base], units, metrics: Sequence[Metric], controls, side, method, how
) -> xr.Dataset:
    by_prompt, metric = np.array(effects), metrics[0]
    by_control = np.mean(controlled, axis=0)
    effect = float(by_prompt.mean())
    extreme = np.abs if side == "changes" else (lambda x: x)
    p = float(monte_carlo_p(extreme(effect), extreme(by_control), SIDES[side]))
    enough = len(by_prompt) >= ENOUGH_PROMPTS
    low, high = bootstrap_interval(by_prompt) if enough else (np.nan, np.nan)
    floor = 1 / (1 + len(by_control))
    peers = np.mean(peered, axis=0) if peered else np.zeros(0)
    result = dataset(
        replace(bases[0].observation, tokens=tuple(base.tokens for base in bases)),
        coords={"label": ("component", list(map(str, controls.peers)))} if len(peers) else None,
        effect=("", effect, metric.units, None, "effect of the removal"),
        effect_low=("", float(low), metric.units, None, "95 % interval over prompts, low"),
        effect_high=("", float(high), metric.units, None, "95 % interval over prompts, high"),
        effect_by_prompt=("prompt", by_prompt, metric.units, None, "effect by prompt"),
        control_effect=("draw", by_control, metric.units, None, "effect of the controls"),
        p=("", p, "probability", (0, 1), "share of controls at least as extreme"),
        p_floor=("", floor, "probability", (0, 1), "smallest p that so many controls can give"),
        louder=("", controls.louder, "times its controls", (0, None), "norm against the controls'"),
        **({"peer_effect": ("component", peers, metric.units, None, "effect of the others")} if len(peers) else {}),
    )
    result.attrs.update(
        units=" ".join(map(str, units)),
        called=_called(units),
        metric=_measured(metrics, bases),
        method=method if method == "zero" else f"{method} of {how}",
        side=side,
        controls=_kind_of_controls(controls),
        window=-1 if controls.window is None else controls.window,
    )
    result.attrs["sentence"] = _sentence(result, _nouns(units), len(by_prompt)) + _beside_peers(result, units)
    return result


def _measured(metrics: Sequence[Metric], bases: Sequence[Base]) -> str:
    """What is measured and where, in words: of one prompt with its tokens, of several as far as they agree."""
    vocabulary, first = bases[0].observation.vocabulary, metrics[0]
    said = {metric.describe(vocabulary) for metric in metrics}
    what = said.pop() if len(said) == 1 else _OF_EACH[first.kind]
    if first.kind in ("loss", "repetition"):
        return what
    what += " minus its alternative" if what == _OF_EACH.get(first.kind) and first.against is not None else ""
    at = {metric.position % len(base.tokens) - len(base.tokens) for metric, base in zip(metrics, bases, strict=True)}
    if at == {-1}:
        return f"{what} at the last position"
    strings = {base.tokens.strings[m.position] for m, base in zip(metrics, bases, strict=True)}
    token = f" ({strings.pop()!r})" if len(strings) == 1 else ""
    return f"{what} at position {first.position}{token}"


def _kind_of_controls(controls: Controls) -> str:
    if controls.directions:
        return "random directions"
    return "matched units" if controls.matched else "unmatched units"


def _called(units: Sequence[Any]) -> str:
    """The units by name, or how many of them where that would be a list."""
    return " ".join(map(str, units)) if len(units) <= _NAMED else f"{len(units)} {_nouns(units).split(' into ')[0]}"


def _nouns(units: Sequence[Any]) -> str:
    """What the controls are, for people."""
    return {
        Head: "heads",
        Attention: "attention blocks",
        MLP: "MLPs",
        Neurons: "neurons",
        AttentionEdge: "edges into the same queries",
        AttentionKey: "keys of heads",
        Residual: "states of the residual stream",
    }[type(units[0])]


def _sentence(result: xr.Dataset, nouns: str, n_prompts: int) -> str:
    """One plain sentence: what was done, what happened, against what, how rare; and how unlike the controls are."""
    a, effect, p = result.attrs, float(result["effect"]), float(result["p"])
    n, units = result.sizes["draw"], result["effect"].attrs["units"]
    known = not np.isnan(float(result["effect_low"]))
    interval = (
        f" (95 % interval {float(result['effect_low']):+.3g} to {float(result['effect_high']):+.3g})" if known else ""
    )
    against = {
        "random directions": f"{n} random directions of the same norm (the model has too few {nouns} to compare with)",
        "unmatched units": f"{n} unmatched sets",
        "matched units": f"{n} sets of the {nouns} nearest in norm, from "
        + ("the same layer" if a["window"] == 0 else f"layers within {a['window']}"),
    }[a["controls"]]
    floor = ", the smallest that so many can give" if p <= float(result["p_floor"]) + 1e-12 else ""
    word = "more" if p <= 0.05 else "no more"
    louder = float(result["louder"])
    unlike = f" It is {louder:.2g} times as loud as they are: none nearby is as loud." if louder > _MUCH_LOUDER else ""
    return (
        f"Removing {a['called']} ({a['method'].split(' of ')[0]}) changes the {a['metric']} by {effect:+.3g} {units}"
        f"{interval} on {n_prompts} prompt{'s' if n_prompts > 1 else ''}; {against}, change it by "
        f"{float(result['control_effect'].mean()):+.3g} on average: it {a['side']} it {word} than its like "
        f"(p = {p:.3g}{floor}).{unlike}"
    )


def _beside_peers(result: xr.Dataset, units: Sequence[Any]) -> str:
    """How the claimed unit stands among the others of its kind, where they are too few for a test."""
    if "peer_effect" not in result:
        return ""
    others, own, side = result["peer_effect"].values, float(result["effect"]), result.attrs["side"]
    n = int({"changes": np.abs(others) >= abs(own), "lowers": others <= own, "raises": others >= own}[side].sum())
    return f" Of the {len(others)} other {_nouns(units)}, removed one by one, {n} {'does' if n == 1 else 'do'} as much."


# --- the entry -------------------------------------------------------------------------------------------------------


def study(
    model: Model,
    tokens: Any,
    *,
    units: str = "L0H0",
    method: str = "zero",
    corrupt: str = "",
    metric: str = "log-probability",
    target: str = "",
    against: str = "",
    pos: int = -1,
    side: str = "changes",
    on: str = "prompt",
    others: str = "",
    controls: int = N_CONTROLS,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """The check of the units on the current prompt, or on others where these are given: it suggested the claim."""
    if on == "repeated tokens":
        prompts, more = list(repeated_tokens(model, seed)), []
    elif tokens is None:
        raise InputError("causal-check without a prompt", "a prompt", "Give one")
    else:
        more = [text.strip() for text in others.split("|") if text.strip()]
        prompts = [tokens, *more]
    yield from checking(
        model,
        prompts if len(prompts) > 1 else prompts[0],
        units,
        {"kind": metric, "target": target, "against": against, "position": pos},
        method,
        corrupt=corrupt or None,
        side=side,
        n_controls=controls,
        suggested_by=[tokens] if more else (),
        seed=seed,
        progress=progress,
    )


def repeated_tokens(model: Model, seed: int) -> list[Tokens]:
    """Random tokens that repeat, drawn anew: not those that an induction score was found on."""
    drawn = induction.repeated_tokens(model, n_sequences=ENOUGH_PROMPTS, length=_REPEATED, seed=seed + 1)
    return [one for one, period in zip(drawn.tokens, drawn.fields["period"], strict=True) if period > 0]


def controls_figure(result: xr.Dataset):
    """The effect among those of its controls."""
    import plotly.graph_objects as go

    from workbench.figures import show_text
    from workbench.figures.heatmap import finish

    effect, name, controls = float(result["effect"]), result.attrs["called"], result["control_effect"].values
    figure = go.Figure(go.Histogram(x=controls.tolist(), nbinsx=30, name="controls", marker_color="#9aa0a6"))
    low, high = min(effect, controls.min()), max(effect, controls.max())
    room = 0.05 * (high - low) or 1.0
    if "peer_effect" in result:
        _draw_peers(figure, result, low - room, high + room)
    left = effect > (low + high) / 2  # the name stands on the side that has room
    figure.add_vline(
        x=effect,
        line={"color": "#c0392b", "width": 3},
        annotation={"text": name, "font": {"color": "#c0392b"}},
        annotation_position="top left" if left else "top right",
    )
    figure.update_xaxes(range=[low - room, high + room])
    figure.update_layout(
        xaxis_title=show_text(f"effect on the {result.attrs['metric']} ({result['effect'].attrs['units']})"),
        yaxis_title="control sets",
        yaxis_rangemode="tozero",
    )
    return finish(figure, f"{name}: effect beside that of {_beside(result)}", None, None)


def _draw_peers(figure: Any, result: xr.Dataset, low: float, high: float) -> None:
    """The few others of the kind as strokes on the axis; one whose removal breaks the model would hide the rest."""
    others = result["peer_effect"].values
    seen = (others >= low) & (others <= high)
    name = "the others" if seen.all() else f"the others ({seen.sum()} of {len(others)}; the rest lie outside)"
    figure.add_scatter(
        x=others[seen].tolist(),
        y=[0] * int(seen.sum()),
        mode="markers",
        name=name,
        marker={"symbol": "line-ns-open", "size": 12, "color": "#1f77b4"},
        text=result["label"].values[seen].tolist(),
        hovertemplate="%{text} %{x:.3g}<extra></extra>",
    )
    figure.update_traces(showlegend=True)


def _beside(result: xr.Dataset) -> str:
    """What the controls are, for a title."""
    return "random directions" if result.attrs["controls"] == "random directions" else "matched controls"


ENTRY = Entry(
    name="causal-check",
    title="Causal check",
    source="matched random controls (arXiv 2211.00593, section 4); Phipson and Smyth 2010",
    limits="An ablated unit leaves the rest of the model in a state it may never see otherwise; p compares with units "
    "as loud and as deep, on these prompts only. Where the claim is the loudest of its like, its controls are quieter.",
    definition="effect = metric with the units removed - metric as it is; p = (1 + controls at least as extreme) / "
    "(1 + controls), controls being as many units of the same kind, nearest in the norm of what their removal takes "
    "away, from the same or neighbouring layers.",
    version=2,
    scope="study",
    study=study,
    figures=(controls_figure,),
    params=(
        Param(
            "units",
            str,
            "L0H0",
            "what is removed, one kind, separated by spaces: L18H6 (head), L18H6:9<-3 (edge from 3 to 9), L18H6 key 0 "
            "(hidden from all queries), L20N507 (neuron), L20 mlp, L20 attention, L12 pos 5 (state)",
        ),
        Param("method", str, "zero", "how it is removed", choices=METHODS),
        Param("corrupt", str, "", "prompt of equal length to resample from"),
        Param(
            "metric",
            str,
            "log-probability",
            "what is measured: of the prediction at a position, or over the prompt: loss, or repetition (what followed "
            "each repeated token the last time)",
            choices=KINDS,
        ),
        Param("target", str, "", "token whose prediction is measured; empty: the model's top token"),
        Param("against", str, "", "token it is compared with"),
        Param("pos", int, -1, "position whose prediction is measured; -1 is the last"),
        Param("side", str, "changes", "what the claim says the removal does to the metric", choices=tuple(SIDES)),
        Param("on", str, "prompt", "what it runs on: the prompt, or random tokens that repeat", choices=STIMULI),
        Param("others", str, "", "prompts that check the claim instead of the shown one, separated by |"),
        Param("controls", int, N_CONTROLS, "number of control sets", low=N_CONTROLS, high=1000),
        Param("seed", int, 0, "seed of random controls", low=0),
    ),
    requires=(READOUT, PADDING),
    cost=lambda sizes, n_tokens, controls=N_CONTROLS, **_: 0.4 * controls + 2,
)

run = ENTRY.run
