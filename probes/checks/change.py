"""Change it and see: how the text goes on when a part of the model is changed, beside the intact one and a control."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.checks.matched_controls import CALIPER, atoms
from probes.checks.norms import output_norms
from probes.checks.swaps import Given, GivenState, as_far
from workbench.analysis.kinds import Study
from workbench.analysis.pace import FIXED
from workbench.analysis.parameters import Choice, Lines, OfPrompt, Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.errors import InputError
from workbench.figures import show_token
from workbench.intervene import (
    MLP,
    Ablate,
    Attention,
    ExpertNeurons,
    Head,
    Neurons,
    Residual,
    Scale,
    Steer,
    units_of,
    with_rows,
)
from workbench.models.hooks import RESID_POST, RESID_PRE
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Prompt, Tokens
from workbench.models.selfcheck import PADDING, READOUT
from workbench.models.target import need_one_token
from workbench.models.typed import typed
from workbench.observation import observe
from workbench.observation.recording import record
from workbench.words import counted

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["VIEW", "ChangeAndSee"]

_ASIDE = 0.42  # of a column: dots stand at the left edge of a cell, where they leave its word free
_KINDS = {Head, MLP, Attention, Neurons, ExpertNeurons}
RUNS = ("intact", "changed", "control")
WAYS = ("remove", "scale", "swap", "steer")


class ChangeAndSee(Study, name="change-and-see", title="Change it and see", requires=(READOUT, PADDING)):
    """How does the text go on when a part of the model is changed?

    Definition: The prompt is continued three times by the most probable token: as the model is, with the unit changed
    in every pass from the first new token on, and with a control changed in the same way. remove: the unit writes
    nothing. scale: what it writes is multiplied (0 removes it, 1 leaves it). swap: at the last tokens of the prompt it
    writes what it wrote at the last tokens of another prompt, the giver, as many as both have without their first; the
    shown prompt takes, also while the text grows. One state (L12 pos 5: at token 5, in front of block 12) becomes the
    one that the giver has there at its token `origin`; its control is the state of another token of the giver, not the
    first, whose distance from the one that is replaced is the nearest. steer: `by` times a direction is added to the
    stream behind the unit's layer at every token: the unembedding of a token, as long as the stream there is on average
    (0 leaves the text as it is). The control is the unit of the same kind whose output is nearest in norm on the
    prompt, within a factor of 1.5 as every control (`seed` passes over the nearest ones); for steer a random direction
    of the same length. kl: from the intact to the other next-token distribution at the first new token, in nats.

    Limits: One prompt, one control, greedy text: two texts part at the first token whose rank turns, however small the
    change was, and never meet again. What differs is seen here; whether it matters more than its like is what
    `causal-check` tests. Interventions at positions counted from the end move along with it as the text grows.

    Source: interventions as in Wang et al. 2022, arXiv 2211.00593 and Turner et al. 2023, arXiv 2308.10248; laid side
    by side with a control, ours

    Returns: `new_token`, `text`, `probability` (condition, step) of what each run wrote, step 0 the first new token,
    -1 behind an end; `differs` (condition, step); `kl` (condition), nats.
    """

    units: Annotated[
        str, "heads, MLPs, attention layers or neurons, one kind: L18H6, L20 mlp, L20N507; for swap also L12 pos 5"
    ] = "L0H0"
    how: Annotated[str, Choice(WAYS), "what is done to it"] = "remove"
    by: Annotated[float, Range(-1000, 1000), "factor of scale, strength of steer"] = 2.0
    toward: Annotated[str, "token to steer toward; empty: none, needed for steer"] = ""
    giver: Annotated[str, OfPrompt(), Lines(), "prompt that gives what is swapped in; needed for swap"] = ""
    origin: Annotated[
        int | None, Range(0), "token of the giver whose state is swapped in; none: as far from its end"
    ] = None
    n: Annotated[int, Range(1, 40), "new tokens"] = 12
    seed: Annotated[
        int, Range(0, 2**31 - 1), "passes over so many of the nearest controls; draws the random direction"
    ] = 0

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The three texts, one token longer each time."""
        self.fits(model, tokens)
        units = units_of(self.units)
        if isinstance(units[0], Residual):
            changed, control, about = self._state(model, tokens, units[0])
        else:
            changed, control, beside = self._edits(model, tokens, units)
            about = self._about(units, changed, beside)
        yield from _written(model, tokens, changed, control, self.n, progress, about)

    def fits(self, model: Model, tokens: Tokens) -> None:
        """Room for a new token, units of one kind that the model has, a giver for swap, a token for steer."""
        if len(tokens) >= model.sizes.n_ctx:
            most = f"at most {model.sizes.n_ctx - 1} for {model.name}, which goes on behind them"
            raise InputError(f"a prompt of {counted(len(tokens), 'token')}", most, "Shorten the prompt")
        units = units_of(self.units)
        kinds = {type(unit) for unit in units}
        is_state = kinds == {Residual} and len(units) == 1 and self.how == "swap"
        if not is_state and (not units or len(kinds) > 1 or not kinds <= _KINDS):
            raise InputError(
                f"units={self.units!r} to {self.how}",
                "heads, MLPs, attention layers or neurons, of one kind, or for swap one state such as L12 pos 5",
                "Name some",
            )
        for unit in units:
            unit.check(model)
        if self.how == "swap":
            given = self._given(model)
            if isinstance(units[0], Residual):
                self._from(units[0], len(tokens), len(given))
        if self.how == "steer":
            self._direction(model, units)

    def idle(self) -> dict[str, str]:
        """What is of another way to change it; a unit takes what the giver has at as many last tokens."""
        of = {"by": ("scale", "steer"), "toward": ("steer",), "giver": ("swap",), "origin": ("swap",)}
        ways = {name: " or ".join(f"how={way!r}" for way in known) for name, known in of.items()}
        idle = {name: ways[name] for name, known in of.items() if self.how not in known}
        if self.how == "swap" and not isinstance(units_of(self.units)[0], Residual):
            idle["origin"] = "one state, such as L12 pos 5"
        return idle

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A pass of three texts for every new token, one after the other."""
        return self.n * (3 * (n_tokens + self.n / 2) + FIXED) / n_tokens

    def _about(self, units: Sequence[Any], changed: Sequence[Any], beside: str) -> dict[str, str]:
        named = " ".join(map(str, units))
        how = {
            "remove": f"Without {named}",
            "scale": f"With {named} times {self.by:g}",
            "swap": f"With {named} as on {self.giver!r} (the giver; the shown prompt takes)",
            "steer": f"Steered behind {named} by {self.by:g} toward {self.toward!r}",
        }[self.how]
        return {"how": how, "beside": beside, "edit": "; ".join(map(str, changed))}

    def _edits(self, model: Model, tokens: Tokens, units: Sequence[Any]) -> tuple[list[Any], list[Any], str]:
        """Edits of the changed run, those of the control (none where there is none), and what the control is."""
        if self.how == "steer":
            return self._steered(model, tokens, units)
        giver = self._giver(model, units, len(tokens)) if self.how == "swap" else None
        others = _as_loud(model, tokens, units, self.seed)
        make = lambda unit: self._edit(unit, giver)
        return list(map(make, units)), list(map(make, others)), " ".join(map(str, others))

    def _state(self, model: Model, tokens: Tokens, unit: Residual) -> tuple[list[Any], list[Any], dict[str, str]]:
        """As `_edits`, of one state, with what is said of it."""
        given = record(model, self._given(model), [RESID_PRE], [unit.layer])
        pos, origin = self._from(unit, len(tokens), given.length)
        swap = lambda at: [Ablate(unit, "resample", GivenState(given, at, pos))]
        other = as_far(model, tokens, unit, given, origin, self.seed)
        words = given.tokens.strings
        about = {
            "how": f"With {unit} as at token {origin} {words[origin]!r} of {self.giver!r} (the giver)",
            "beside": "" if other is None else f"the giver's token {other} {words[other]!r} in its place",
            "lacking": "No other state of the giver is as far from the one that is replaced",
            "edit": str(swap(origin)[0]),
        }
        return swap(origin), [] if other is None else swap(other), about

    def _from(self, unit: Residual, n_tokens: int, n_given: int) -> tuple[int, int]:
        """The token that takes a state, and the giver's that gives it."""
        if unit.pos is None or unit.pos >= n_tokens:
            raise InputError(f"{unit}", f"a token from 0 to {n_tokens - 1}", "Choose one that the prompt has")
        origin = n_given - (n_tokens - unit.pos) if self.origin is None else self.origin
        if not 0 <= origin < n_given:
            raise InputError(
                f"token {origin} of the giver", f"a token from 0 to {n_given - 1}", "Choose one that it has"
            )
        return unit.pos, origin

    def _giver(self, model: Model, units: Sequence[Any], n_tokens: int) -> Given:
        hooks = list(dict.fromkeys(unit.hook for unit in units))
        return Given(record(model, self._given(model), hooks), n_tokens)

    def _given(self, model: Model) -> Tokens:
        if not self.giver:
            raise InputError("how='swap' without a giver", "a prompt that gives what is swapped in", "Fill in giver")
        return typed(model, self.giver)

    def _edit(self, unit: Any, giver: Given | None) -> Any:
        if self.how == "remove":
            return Ablate(unit)
        return Scale(unit, self.by) if giver is None else Ablate(unit, "resample", giver, positions=giver.positions)

    def _steered(self, model: Model, tokens: Tokens, units: Sequence[Any]) -> tuple[list[Any], list[Any], str]:
        direction, layer = self._direction(model, units), units[0].layer
        states = record(model, tokens, [RESID_POST], [layer]).take(RESID_POST, layer, model).float()
        length = float(states[1:].norm(dim=-1).mean()) if len(tokens) > 1 else float(states.norm(dim=-1).mean())
        generator = torch.Generator().manual_seed(self.seed)
        random = torch.randn(len(direction), generator=generator, dtype=torch.float32)
        make = lambda one: [Steer(layer, one / one.norm() * length, self.by)]
        return make(direction), make(random), "a random direction as long"

    def _direction(self, model: Model, units: Sequence[Any]) -> torch.Tensor:
        """Toward the token, `[d_model]`."""
        if not self.toward:
            raise InputError("how='steer' without a token", "a token to steer toward", "Fill in toward: ' Paris'")
        if len({unit.layer for unit in units}) > 1:
            raise InputError(f"units={self.units!r} for steer", "units of one layer", "Name one")
        token = need_one_token(model.vocabulary, self.toward, "steering, which follows one token")
        return model.readout.W_U[token].detach().float().cpu()


def _as_loud(model: Model, tokens: Tokens, units: Sequence[Any], seed: int) -> list[Any]:
    """For each unit another one of its kind, the nearest in norm on the prompt, none twice; none at all where one of
    them has no like within the caliper. seed: how many of the nearest are passed over."""
    kind = type(units[0])
    claimed = atoms(units)
    norms = output_norms(model, [tokens], kind)
    shape = norms.shape[1:]
    flat = norms.reshape(len(norms), -1)
    place = lambda unit: (unit.layer, _index(unit, shape) if shape else 0)
    taken, found = {place(unit) for unit in claimed}, []
    for unit in claimed:
        away = np.abs(flat - flat[place(unit)])
        near = [(int(a), int(b)) for a, b in np.argwhere(away <= np.log(CALIPER)) if (int(a), int(b)) not in taken]
        near.sort(key=lambda at: (away[at], at))
        if len(near) <= seed:
            return []
        taken.add(near[seed])
        found.append(_made(kind, *near[seed], shape))
    return found


def _index(unit: Any, shape: tuple[int, ...]) -> int:
    if isinstance(unit, ExpertNeurons):
        return unit.expert * shape[1] + unit.neurons[0]
    return int(unit.neurons[0] if isinstance(unit, Neurons) else unit.head)


def _made(kind: type, layer: int, index: int, shape: tuple[int, ...]) -> Any:
    if kind is ExpertNeurons:
        return ExpertNeurons(layer, index // shape[1], (index % shape[1],))
    if kind is Neurons:
        return Neurons(layer, (index,))
    return Head(layer, index) if kind is Head else kind(layer)


def _written(
    model: Model,
    tokens: Tokens,
    changed: Sequence[Any],
    control: Sequence[Any],
    n: int,
    progress: Progress | None,
    about: dict[str, str],
) -> Generator[xr.Dataset, None, None]:
    """Continue all runs in one batch, a token at a time; one that the model has ended stands."""
    edits = dict(zip(RUNS, ([], changed, control), strict=True))
    ids = {run: list(tokens.ids) for run in RUNS if run != "control" or control}
    chosen: dict[str, list[int]] = {run: [] for run in RUNS}
    likely: dict[str, list[float]] = {run: [] for run in RUNS}
    alive = list(ids)
    first: dict[str, torch.Tensor] = {}
    for step in range(n):
        if progress is not None:
            progress(step / n)
        alive = [run for run in alive if len(ids[run]) < model.sizes.n_ctx]
        if not alive:
            break
        placed = [with_rows(edit, row) for row, run in enumerate(alive) for edit in edits[run]]
        observed = observe(model, [Prompt.ids(ids[run]) for run in alive], interventions=placed)
        for run, log_probs in zip(tuple(alive), observed.log_probs, strict=True):
            row = log_probs[-1].float().cpu()
            first.setdefault(run, row)
            best = int(row.argmax())
            chosen[run].append(best)
            likely[run].append(float(row[best].exp()))
            ids[run].append(best)
            if best in model.ends:
                alive.remove(run)
        result = _result(model, chosen, likely, first)
        yield result.assign_attrs(about, summary=_summary(result, about))


def _result(
    model: Model,
    chosen: dict[str, list[int]],
    likely: dict[str, list[float]],
    first: dict[str, torch.Tensor],
) -> xr.Dataset:
    longest = max(map(len, chosen.values()))
    padded = np.array([chosen[run] + [-1] * (longest - len(chosen[run])) for run in RUNS])
    probability = np.array([likely[run] + [np.nan] * (longest - len(likely[run])) for run in RUNS])
    text = np.array([[model.vocabulary.string(t) if t >= 0 else "" for t in row] for row in padded.tolist()], object)
    base = first["intact"]
    kl = [float((base.exp() * (base - first[run])).sum().clamp(min=0)) if run in first else np.nan for run in RUNS]
    differs = (padded != padded[0]) & (padded >= 0)
    return dataset(
        None,
        {"condition": list(RUNS)},
        new_token=("condition step", padded, "token id", (-1, None), "token that was written"),
        text=("condition step", text, "text", None),
        probability=("condition step", probability, "probability", (0, 1), "probability of what was written"),
        differs=("condition step", differs.astype(np.int8), "0 or 1", (0, 1), "differs from the intact text"),
        kl=("condition", np.array(kl), "nats", (0, None), "KL from the intact prediction at the first new token"),
    )


def _summary(result: xr.Dataset, about: dict[str, str]) -> str:
    """What becomes of the text, and of the control's, with the first token at which they part from the intact one."""
    said = [f"{about['how']} {_fate(result, 'changed')}."]
    if about["beside"]:
        said.append(f"Its control, {about['beside']}, {_fate(result, 'control').replace('the text ', '', 1)}.")
    else:
        lacking = about.get("lacking", "No other unit of its kind is as loud on this prompt")
        said.append(f"{lacking}: there is no control.")
    return " ".join(said)


def _fate(result: xr.Dataset, run: str) -> str:
    here, kl = result.sel(condition=run), float(result["kl"].sel(condition=run))
    parts = np.flatnonzero(here["differs"].values)
    n = int((here["new_token"].values >= 0).sum())
    measured = f"KL {kl:.2g} nats at the first new token"
    if not parts.size:
        return f"the text goes on as it was for {n} {'token' if n == 1 else 'tokens'} ({measured})"
    at = int(parts[0])
    old, new = (str(result["text"].sel(condition=one).values[at]) for one in ("intact", run))
    was = f"{old!r}" if old else "its end"
    return f"the text parts from the intact one at new token {at + 1}: {new!r} rather than {was} ({measured})"


def texts_figure(result: xr.Dataset) -> "go.Figure":
    """The runs beside each other, a row for each new token, by probability; what differs from the intact one is dotted.

    Downwards, since a word is wider than it is high: on a phone, too, there is room for it.
    """
    from workbench.figures import show_text
    from workbench.figures.axes import Axis
    from workbench.figures.heatmap import heatmap
    from workbench.figures.quantity import coloraxis, pick_scale

    runs, steps = [str(run) for run in result["condition"].values], result["step"].values.tolist()
    x = Axis("condition", tuple(runs), "", tuple(range(len(runs))), tuple(map(show_text, runs)))
    y = Axis(
        "step", tuple(steps), "new token", tuple(range(len(steps))), tuple(str(step + 1) for step in steps),
        is_vertical=True, is_reversed=True,
    )  # fmt: skip
    text = np.array([[show_token(str(t)) if t else "" for t in row] for row in result["text"].values], object).T
    z, array = result["probability"].values.T, result["probability"]
    scale = pick_scale(array, None)
    said = lambda step, run: f"<b>{runs[run]}, new token {step + 1}</b><br>{text[step, run]} {z[step, run]:.2g}"
    hover = np.array([[said(step, run) for run in range(len(runs))] for step in range(len(steps))], object)
    differs = np.argwhere(result["differs"].values.T)
    return heatmap(
        z, x, y, title=f"{result.attrs['how']}: how the text goes on", scale=scale,
        coloraxis=coloraxis(z, array, scale, None), hover=hover, text=text, text_size=11,
        marks=[(int(step), int(run)) for step, run in differs], mark_name="differs from intact", mark_aside=_ASIDE,
    )  # fmt: skip


def table(result: xr.Dataset) -> "pd.DataFrame":
    """The runs side by side, a row for each new token, and whether the changed one differs."""
    import pandas as pd

    texts = {str(run): result["text"].sel(condition=run).values for run in result["condition"].values}
    frame = pd.DataFrame(texts).assign(differs=result["differs"].sel(condition="changed").values.astype(bool))
    return frame.set_axis([step + 1 for step in result["step"].values.tolist()], axis=0).rename_axis("new token")


VIEW = View(
    ChangeAndSee,
    question="How does the text go on when a part of the model is changed?",
    asks=(
        Ask("units", "Change", pick="units"),
        Ask("how", "this way:"),
        Ask("n", "and go on for", unit="tokens"),
    ),
    figures=(texts_figure,),
    tables=(table,),
)
