"""How well tokens can be read at every depth, for last tokens of words and for controls: where the honest story lives.

For each (depth, offset) a probe is trained on one part of the text and asked on another; accuracy is the share of
tokens it names. Beside it stands the same recipe on random weights around the trained embedding: what architecture and
frequency alone give. That control is weak, since random weights hardly carry the token before at all: it bounds
artefacts, and does not show what a model that carries it would do.

Probes of the user's cache are used where they were made by the same recipe from the same text; the others are trained,
which takes most of the time. What is done is kept, so a run that was stopped goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from probes.erasure.contrasts import CONTROLS, GROUPS, accuracies, cells_of, excess_drop, resampled
from probes.erasure.readout import GET, KIND, OFFSETS, SHOWN, identified
from probes.erasure.trained.artifact import ReadoutProbes, default_path, find, save_probes
from probes.erasure.trained.control import random_twin
from probes.erasure.trained.states import Pieces, collect
from probes.erasure.trained.trainer import (
    Material,
    Recipe,
    Training,
    known_of,
    measured,
    parts_of,
    prepare,
    recommended_depths,
    work_name,
)
from probes.erasure.trained.words import place_masks
from workbench.analysis.legacy import Entry, Param
from workbench.analysis.results import dataset
from workbench.corpora import Corpus
from workbench.errors import InputError, UnavailableError

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.models.model import Model

__all__ = [
    "ACCURACY",
    "accuracy_figure",
    "accuracy_study",
    "card_rows",
    "drop_figure",
    "imported_of",
    "measure_imported",
    "parsed_depths",
    "said",
]

_DRAWS = 2000
# Of 30 layers: close together where the token before appears and goes.
_SHARES = (0, 1, 2, 3, 4, 6, 9, 12, 16, 20, 30)


def parsed_depths(text: str, n_layers: int) -> tuple[int, ...]:
    """Depths for "auto" (eleven of them), "two" (those that erasure compares), or a list such as "1,2,20"."""
    early, late = recommended_depths(n_layers)
    if text == "auto":
        return tuple(sorted({round(share * n_layers / 30) for share in _SHARES} | {early, late}))
    if text == "two":
        return early, late
    try:
        depths = {int(part) for part in text.split(",")}
    except ValueError:
        depths = {-1}
    if not all(0 <= depth <= n_layers for depth in depths):
        raise InputError(f"depths={text!r}", f"auto, two, or depths 0 to {n_layers} such as 1,2,20", "Correct them")
    return tuple(sorted(depths | {early, late}))


def accuracy_study(
    model: "Model",
    tokens=None,
    *,
    depths: str = "auto",
    control: bool = True,
    far: bool = False,
    kind: str = "factored",
    epochs: int = 3,
    seed: int = 0,
    corpus: Corpus | dict[str, Pieces] | None = None,
    folder: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Accuracy by depth, offset and group, and the excess drop against every control.

    Yields a Dataset after every few depths, the last complete: `probe_accuracy` (depth, offset, group) with `_low` and
    `_high`, `tokens` (offset, group), `excess_drop` (offset, component) with `_low` and `_high` over the controls, and
    with `control` the same with `_random`, and `excess_over_random`. When it is complete, its numbers join the card of
    the probes in the cache.
    depths: see `parsed_depths`; of imported probes always those that there are, and no control. far: also offset -3.
    tokens: not used; the text is the corpus's.
    """
    record, parts = parts_of(model, corpus, seed)
    report = lambda s, text="": progress(s) if progress is not None else None
    if kind == "imported":
        yield measure_imported(model, record, parts, report)
        return
    wanted, offsets = parsed_depths(depths, model.sizes.n_layers), SHOWN if far else OFFSETS
    recipe, pair = Recipe.of(kind, epochs=epochs, seed=seed), recommended_depths(model.sizes.n_layers)
    place = folder or default_path(model.identity.weights_hash).with_name("accuracy")
    place = place / work_name(model, record, recipe)
    share = len(wanted) / (len(wanted) + 2 * control)
    training = Training(model, prepare(model, parts), recipe, place, report, (0.0, share))
    training.known = known_of(find(model.identity.weights_hash, kind=kind), record, recipe)
    study = Study(model, record, recipe.epochs, _groups_of(training.material, offsets), pair)
    for batch in _batches(wanted, offsets, training):
        study.hits |= _trained(training, batch, offsets)
        yield study.result()
    if control:
        twin = random_twin(model)
        place = place.with_name(place.name + "-random")
        other = Training(twin, prepare(twin, parts), recipe, place, report, (share, 1.0))
        study.twin_hits = _trained(other, pair, offsets)
        yield study.result()
    _join_card(model, kind, record, recipe, study.result())


def measure_imported(
    model: "Model", record: dict, parts: dict[str, Pieces], progress: Callable[[float], None] | None = None
) -> xr.Dataset:
    """How well imported probes read held-out text, which their card says from then on. As `accuracy_study` yields."""
    probes = imported_of(model)
    offsets, material = tuple(o for o in SHOWN if o in probes.offsets), prepare(model, parts)
    keys = [key for key in sorted(probes.maps) if key[1] in offsets]
    rows, hits = dict(probes.numbers), {}
    for part in ("val", "test"):
        pieces = parts[part]
        states = collect(model, pieces, probes.depths, progress if part == "test" else None, raw=True)
        for key in keys:
            at, ids = pieces.targets(key[1])
            classes, index = probes.classes_with(ids)
            targets = torch.tensor([index[int(i)] for i in ids])
            own, hit, _ = probes.score(*key, states[key[0]][torch.from_numpy(at)], classes, targets)
            found = measured(pieces, key[1], at, own, hit)
            rows[key] = rows[key] | {f"{part}_{name}": value for name, value in found.items()}
            hits[key] = hit.numpy()
    pair = (probes.depths[0], probes.depths[-1])
    result = Study(model, record, 0, _groups_of(material, offsets), pair, hits).result()
    card = {key: value for key, value in probes.card.items() if key != "quality"}
    card |= {"probes": [rows[key] for key in sorted(rows)], "measured_on": record, "accuracy": card_rows(result)}
    save_probes(replace(probes, card=card), default_path(model.identity.weights_hash, "imported"))
    return result


def imported_of(model: "Model") -> ReadoutProbes:
    """The imported probes of a model; UnavailableError where there are none."""
    probes = find(model.identity.weights_hash, kind="imported")
    if probes is None:
        raise UnavailableError(f"no imported probes of {model.name}", "probes of these weights", GET["imported"])
    return probes


def card_rows(result: xr.Dataset) -> dict[str, list[dict]]:
    """The numbers of a result as a card keeps them: known ones only, a row for each, to four decimals."""

    def table(names: dict[str, str]) -> list[dict]:
        frame = result[list(names)].rename(names).to_dataframe().reset_index().dropna().round(4)
        return frame.to_dict("records")

    kept = {}
    tables = {"rows": "probe_accuracy", "rows_random": "probe_accuracy_random"}
    for key, name in (tables | {n: n for n in ("excess_drop", "excess_drop_random", "excess_over_random")}).items():
        if name in result:
            value = "accuracy" if key.startswith("rows") else "excess_drop"
            kept[key] = table({name: value, f"{name}_low": "low", f"{name}_high": "high"})
    return kept


def _join_card(model: "Model", kind: str, record: dict, recipe: Recipe, result: xr.Dataset) -> None:
    """Keep a complete study in the card of the cached probes, where they come from the same text and recipe."""
    probes = find(model.identity.weights_hash, kind=kind)
    if not known_of(probes, record, recipe):
        return
    joined = dict(probes.card.get("accuracy", {}))
    for name, rows in card_rows(result).items():
        before = {_place(row): row for row in joined.get(name, ())}  # depths of earlier studies stay
        joined[name] = list((before | {_place(row): row for row in rows}).values())
    card = {**probes.card, "accuracy": joined}
    save_probes(replace(probes, card=card), default_path(model.identity.weights_hash, kind))


def _place(row: dict) -> tuple:
    return tuple(row.get(name) for name in ("depth", "offset", "group", "component"))


def _batches(depths: Sequence[int], offsets: Sequence[int], training: Training) -> list[tuple[int, ...]]:
    """What is known comes first, then four depths at a time."""
    known = tuple(d for d in depths if all(training.stored(d, offset) is not None for offset in offsets))
    rest = [d for d in depths if d not in known]
    return [*([known] if known else []), *(tuple(rest[i : i + 4]) for i in range(0, len(rest), 4))]


def _trained(training: Training, depths: Sequence[int], offsets: Sequence[int]) -> dict[tuple[int, int], np.ndarray]:
    """Hits of every probe, trained where it is not stored."""
    training.run(depths, offsets)
    keys = [(depth, offset) for depth in depths for offset in offsets]
    return {key: training.stored(*key)[0]["hits"].numpy().astype(bool) for key in keys}


def _groups_of(material: Material, offsets: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
    """For every offset, where each held-out token with a target stands: what `cells_of` takes beside the hits."""
    pieces = material.parts["test"]
    strings = [t.strings for t in pieces.tokens]
    found = {}
    for offset in offsets:
        at, labels = material.labels("test", offset)
        masks = place_masks(strings, offset, pieces.first)
        counts = material.counts[labels].numpy()
        found[offset] = {
            "document": np.unique(pieces.document[at], return_inverse=True)[1],
            "last": masks["last"][at],
            "mid": masks["mid"][at],
            "free": ~masks["run"][at] & ~masks["run"][at + offset],
            "frequency": np.floor(np.log2(counts + 1)).astype(np.int64),
            "types": labels.numpy(),
        }
    return found


@dataclass(eq=False)
class Study:
    """What was found so far, and how it becomes a result.

    groups: `_groups_of` by offset. pair: the depths that are compared. hits: by (depth, offset), of the model and of
    its random twin.
    """

    model: "Model"
    record: dict
    epochs: int
    groups: dict[int, dict[str, np.ndarray]] = field(repr=False)
    pair: tuple[int, int]
    hits: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)
    twin_hits: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)

    def result(self) -> xr.Dataset:
        """All that is there; NaN where nothing was measured."""
        done, offsets = sorted({depth for depth, _ in self.hits}), list(self.groups)
        variables = _measured(self.groups, self.hits, done, self.pair, "")
        if self.twin_hits:
            variables |= _measured(self.groups, self.twin_hits, done, self.pair, "_random")
            variables |= _over_random(self.groups, self.hits, self.twin_hits, self.pair)
        coords = {"depth": done, "offset": offsets, "group": list(GROUPS), "component": list(CONTROLS)}
        result = identified(dataset(coords=coords, **variables), self.model)
        return result.assign_attrs(
            early=self.pair[0], late=self.pair[1], corpus=self.record["name"], corpus_digest=self.record["digest"],
            epochs=self.epochs, summary=_summary(result, self.pair),
        )  # fmt: skip


def _measured(groups, hits, done: Sequence[int], pair, ending: str) -> dict[str, tuple]:
    """Accuracies and excess drops of one model; NaN at depths that were not run."""
    shape = (len(done), len(groups), len(GROUPS))
    value, low, high = (np.full(shape, np.nan) for _ in range(3))
    excess = {key: np.full((len(groups), len(CONTROLS)), np.nan) for key in ("value", "low", "high")}
    n = np.zeros(shape[1:])
    for column, offset in enumerate(groups):
        there = [d for d in done if (d, offset) in hits]
        if not there:
            continue
        cells = cells_of(np.stack([hits[d, offset] for d in there]), **groups[offset])
        draws = resampled(len(cells["last"].counts), _DRAWS)
        found = accuracies(cells, draws)
        rows = [done.index(d) for d in there]
        value[rows, column], low[rows, column], high[rows, column] = found["value"], found["low"], found["high"]
        n[column] = found["n"]
        if set(pair) <= set(there):
            drop = excess_drop(cells, there.index(pair[0]), there.index(pair[1]), draws)
            for key, values in drop.items():
                excess[key][column] = values
    what = "on random weights" if ending else "on held-out documents"
    dims, spec = "depth offset group", ("share of tokens", (0, 1), f"accuracy {what}")
    drop_spec = ("share of tokens", (-2, 2), f"excess drop, depth {pair[0]} to {pair[1]}, {what}")
    found = {
        f"probe_accuracy{ending}": (dims, value, *spec),
        f"probe_accuracy{ending}_low": (dims, low, *spec),
        f"probe_accuracy{ending}_high": (dims, high, *spec),
        f"excess_drop{ending}": ("offset component", excess["value"], *drop_spec),
        f"excess_drop{ending}_low": ("offset component", excess["low"], *drop_spec),
        f"excess_drop{ending}_high": ("offset component", excess["high"], *drop_spec),
    }
    return found if ending else found | {"tokens": ("offset group", n, "tokens", (0, None), "held-out tokens")}


def _over_random(groups, hits, twin_hits, pair) -> dict[str, tuple]:
    """Excess drop of the model minus that of its twin, on the same tokens: it is linear in the hits, and so is this."""
    found = {key: np.full((len(groups), len(CONTROLS)), np.nan) for key in ("value", "low", "high")}
    for column, offset in enumerate(groups):
        if not all((d, offset) in some for d in pair for some in (hits, twin_hits)):
            continue
        more = np.stack([hits[d, offset].astype(np.float64) - twin_hits[d, offset] for d in pair])
        cells = cells_of(more, **groups[offset])
        for key, values in excess_drop(cells, 0, 1, resampled(len(cells["last"].counts), _DRAWS)).items():
            found[key][column] = values
    spec = ("share of tokens", (-4, 4), "excess drop of the model minus that of random weights")
    names = {"": "value", "_low": "low", "_high": "high"}
    return {f"excess_over_random{end}": ("offset component", found[key], *spec) for end, key in names.items()}


def _summary(result: xr.Dataset, pair: tuple[int, int]) -> str:
    """The strictest contrast with its interval and what it allows to say, beside its control."""
    what = {offset: said(result, "excess_drop", offset) for offset in (-1, 0, -2) if offset in result["offset"]}
    text = f"Excess drop at last tokens against tokens of the same type, depth {pair[0]} to {pair[1]}: "
    text += ", ".join(f"offset {offset} {words}" for offset, words in what.items())
    known = "excess_drop_random" in result
    random = f"; at offset -1 random weights {said(result, 'excess_drop_random', -1)}" if known else ""
    more = f", the model above them {said(result, 'excess_over_random', -1)}" if known else ""
    return text + random + more + "."


def said(result: xr.Dataset, name: str, offset: int) -> str:
    """`+0.13 [-0.01, +0.22]: likely, not sure`. Likely: 0 lies in the interval, and outside the middle 90 % of a normal
    distribution of its width."""
    at = {"offset": offset, "component": "type-matched"}
    value, low, high = (float(result[f"{name}{end}"].sel(at)) for end in ("", "_low", "_high"))
    if np.isnan(value) or np.isnan(low):
        return "too few"
    if low > 0 or high < 0:
        verdict = "above 0 on this text" if low > 0 else "below 0 on this text"
    else:
        verdict = "likely, not sure" if value > 1.645 * (high - low) / 3.92 else "not shown"
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}] ({verdict})"


_RANDOM = ", random weights"
_PLACES = {0: "itself", -1: "before", -2: "two before", -3: "three before"}
_NAMES = {"others": "others", "frequency-matched": "others, same frequencies", "type-matched": "same types elsewhere"}
_OF = {"last": "", "last, typed": ", of types found elsewhere too"}


def accuracy_figure(result: xr.Dataset, *, against: str = "type-matched", offset: int = -1) -> "go.Figure":
    """Accuracy by depth of last tokens of words and of one control, and of both on random weights where they were run.

    against: the control, or "all" groups of the model in one picture. offset: which token the probes name.
    """
    from workbench.figures import series

    part = _of_offset(result, offset)
    title = f"How often probes name the token {_PLACES[offset]}"
    if against == "all":
        return series(part, "probe_accuracy", "depth", by="group", title=title)
    shown = _held_against(part, against)
    title += f": last tokens of words{_OF[CONTROLS[against]]}"
    figure = series(shown, "probe_accuracy", "depth", by="group", title=title).update_traces(connectgaps=True)
    figure.update_yaxes(title_text="share of held-out tokens")
    for name in shown["group"].values.tolist():
        if name.endswith(_RANDOM):  # two depths, too far apart for a band
            own = shown.sel(group=name)
            up, down = (abs(own[f"probe_accuracy{end}"] - own["probe_accuracy"]).values for end in ("_high", "_low"))
            bars = {"type": "data", "array": up, "arrayminus": down, "thickness": 1, "width": 4}
            figure.update_traces(error_y=bars, selector={"name": name})
    return figure


def _of_offset(result: xr.Dataset, offset: int) -> xr.Dataset:
    known = result["offset"].values.tolist()
    if offset not in known:
        raise InputError(f"offset {offset}", f"one of {', '.join(map(str, known))}", "Run it again with far=True")
    return result.sel(offset=offset, drop=True)


def _held_against(part: xr.Dataset, control: str) -> xr.Dataset:
    """`probe_accuracy` (depth, group) of the last tokens and one control, then of both on random weights."""
    groups = [CONTROLS[control], control]
    names = ["last tokens", _NAMES[control]]
    found = []
    for ending, behind in (("", ""), ("_random", _RANDOM)):
        if f"probe_accuracy{ending}" in part:
            ends = {f"probe_accuracy{ending}{end}": f"probe_accuracy{end}" for end in ("", "_low", "_high")}
            one = part[list(ends)].rename(ends).sel(group=groups)
            found.append(one.assign_coords(group=[name + behind for name in names]))
    return xr.concat(found, "group")


def drop_figure(result: xr.Dataset, *, offset: int = -1) -> "go.Figure":
    """Excess drop of the model, of random weights, and of the one above the other, against every control.

    Where an interval holds 0 the contrast is not shown by this text. offset: which token the probes name.
    """
    from workbench.figures import bars

    part = _of_offset(result, offset)
    names = {"excess_drop": "the model", "excess_drop_random": "random weights", "excess_over_random": "difference"}
    ends, rows, labels = ("", "_low", "_high"), [], []
    for control in part["component"].values.tolist():
        for name, said_so in names.items():
            if name in part:
                rows.append([float(part[f"{name}{end}"].sel(component=control)) for end in ends])
                labels.append(f"{control}, {said_so}")
    spec = ("share of tokens", (-4, 4), f"excess drop, depth {result.attrs['early']} to {result.attrs['late']}")
    columns = {f"excess_drop{end}": ("rank", np.array(rows)[:, i], *spec) for i, end in enumerate(ends)}
    title = f"Excess drop at last tokens of words, offset {offset}; an interval with 0 in it shows nothing"
    return bars(dataset(**columns), "excess_drop", "rank", labels=labels, title=title)


def cost(sizes, n_tokens: int, **params) -> float:
    """Training takes thousands of passes."""
    return 5000.0


ACCURACY = Entry(
    name="token-erasure-accuracy",
    title="Token erasure: accuracy by layer",
    source="Feucht et al. 2024, arXiv 2406.20086; type matching and the random-weight control are ours",
    definition=(
        "Share of held-out tokens whose neighbour at t + i a linear probe names from the state at t, by depth, for "
        "last tokens of words of several tokens, other tokens, others weighted to the same target frequencies, and "
        "tokens of the same target type outside such words. Excess drop = (last early - last late) - (control early - "
        "control late); intervals resample documents."
    ),
    limits=(
        "Probes are trained briefly on 75,000 tokens: accuracy is a lower bound of what could be read. A contrast "
        "against other tokens, also frequency-matched ones, is no evidence of learned erasure: random weights show one "
        "too. Intervals do not cover retraining. Nothing here holds for other text or models."
    ),
    scope="study",
    study=accuracy_study,
    prompted=False,
    figures=(accuracy_figure, drop_figure),
    display=(
        Param("against", str, "type-matched", "the control beside them, or all groups", choices=(*CONTROLS, "all")),
        Param("offset", int, -1, "which token the probes name; 0 is the token itself", choices=SHOWN),
    ),
    params=(
        Param("depths", str, "auto", "auto (eleven), two (those that erasure compares), or a list such as 1,2,20"),
        Param("control", bool, True, "the same recipe on random weights"),
        Param("far", bool, False, "also offset -3"),
        KIND,
        Param("epochs", int, 3, "passes over the training text", low=1, high=20),
        Param("seed", int, 0, "of the split and of training", low=0, high=10_000),
    ),
    cost=cost,
)
