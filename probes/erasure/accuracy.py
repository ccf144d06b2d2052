"""How well tokens can be read at every depth, for last tokens of words and for controls: where the honest story lives.

For each (depth, offset) a probe is trained on one part of the text and asked on another; accuracy is the share of
tokens it names. Beside it stands the same recipe on random weights around the trained embedding: what architecture and
frequency alone give. That control is weak, since random weights hardly carry the token before at all: it bounds
artefacts, and does not show what a model that carries it would do.

Probes of the user's cache are used where they were made by the same recipe from the same text; the others are trained,
which takes most of the time. What is done is kept, so a run that was stopped goes on.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import xarray as xr

from probes.erasure.accuracy_figures import Display, accuracy_figure, drop_figure
from probes.erasure.contrasts import CONTROLS, GROUPS, Groups, variables_of, variables_over_random
from probes.erasure.readout import GET, SHOWN, Kind, identified
from probes.erasure.trained.artifact import ReadoutProbes, default_path, find, joining, save_probes
from probes.erasure.trained.control import random_twin
from probes.erasure.trained.recipe import OFFSETS, Recipe
from probes.erasure.trained.states import Pieces, collect
from probes.erasure.trained.trainer import (
    Material,
    Training,
    known_of,
    measured,
    parts_of,
    prepare,
    recommended_depths,
    work_name,
)
from probes.erasure.trained.words import place_masks
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.corpora import Corpus
from workbench.errors import InputError, UnavailableError, WorkbenchError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.words import change

__all__ = [
    "VIEW",
    "TokenErasureAccuracy",
    "card_rows",
    "imported_of",
    "measure_imported",
    "parsed_depths",
    "said",
]

# Of 30 layers: close together where the token before appears and goes.
_SHARES = (0, 1, 2, 3, 4, 6, 9, 12, 16, 20, 30)


class TokenErasureAccuracy(Study, name="token-erasure-accuracy", title="Token erasure: accuracy by layer"):
    """Accuracy by depth, offset and group, and the excess drop against every control.

    Definition: Share of held-out tokens whose neighbour at t + i a linear probe names from the state at t, by depth,
    for last tokens of words of several tokens, other tokens, others weighted to the same target frequencies, and tokens
    of the same target type outside such words. Excess drop = (last early - last late) - (control early - control late);
    intervals resample documents.

    Limits: Probes are trained briefly on 75,000 tokens: accuracy is a lower bound of what could be read. A contrast
    against other tokens, also frequency-matched ones, is no evidence of learned erasure: random weights show one too.
    Intervals do not cover retraining. Nothing here holds for other text or models.

    Source: Feucht et al. 2024, arXiv 2406.20086; type matching and the random-weight control are ours

    Returns: `probe_accuracy` (depth, offset, group) with `_low` and `_high`, `tokens` (offset, group), `excess_drop`
    (offset, component) with `_low` and `_high` over the controls, and with `control` the same with `_random`, and
    `excess_over_random`; after every few depths, the last complete. When it is complete, its numbers join the card of
    the probes in the cache.
    """

    prompted: ClassVar[bool] = False
    editable: ClassVar[bool] = False  # its probes are kept by the model's weights

    depths: Annotated[str, "auto (eleven), two (those that erasure compares), or a list such as 1,2,20"] = "auto"
    control: Annotated[bool, "the same recipe on random weights"] = True
    far: Annotated[bool, "also offset -3"] = False
    kind: Kind = "factored"
    epochs: Annotated[int, Range(1, 20), "passes over the training text"] = Recipe.epochs
    seed: Annotated[int, Range(0, 10_000), "of the split and of training"] = Recipe.seed

    def artifact(self, model: Model) -> str | None:
        """Which probes were imported: others may have come in their place."""
        try:
            probes = find(model.identity.key, kind="imported") if self.kind == "imported" else None
        except WorkbenchError:
            probes = None  # the analysis raises it
        return "" if probes is None else probes.digest

    def idle(self) -> dict[str, str]:
        """Imported probes are measured as they are."""
        trained = ("depths", "control", "far", "epochs")
        return dict.fromkeys(trained, "probes that are trained here") if self.kind == "imported" else {}

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """On the interpreter's documentation."""
        yield from self.over(model, None, progress=progress)

    def over(
        self,
        model: Model,
        corpus: Corpus | dict[str, Pieces] | None,
        *,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> Iterator[xr.Dataset]:
        """On a corpus (None: the interpreter's documentation).

        folder: where probes that are done are kept until all are; None for the user's cache. Of imported probes always
        those depths that there are, and no control.
        """
        record, parts = parts_of(model, corpus, self.seed)
        report = lambda s, text="": progress(s) if progress is not None else None
        if self.kind == "imported":
            yield measure_imported(model, record, parts, report)
            return
        wanted, pair = parsed_depths(self.depths, model.sizes.n_layers), recommended_depths(model.sizes.n_layers)
        offsets, recipe = SHOWN if self.far else OFFSETS, Recipe.of(self.kind, epochs=self.epochs, seed=self.seed)
        place = folder or default_path(model.identity.key).with_name("accuracy")
        place = place / work_name(model, record, recipe)
        share = len(wanted) / (len(wanted) + 2 * self.control)
        training = Training(model, prepare(model, parts), recipe, place, report, (0.0, share))
        training.known = known_of(find(model.identity.key, kind=self.kind), record, recipe)
        found = Findings(model, record, recipe.epochs, _groups_of(training.material, offsets), pair)
        for batch in _batches(wanted, offsets, training):
            found.hits |= _trained(training, batch, offsets)
            yield found.result()
        if self.control:
            twin = random_twin(model)
            place = place.with_name(place.name + "-random")
            other = Training(twin, prepare(twin, parts), recipe, place, report, (share, 1.0))
            found.twin_hits = _trained(other, pair, offsets)
            yield found.result()
        _join_card(model, self.kind, record, recipe, found.result())

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Training of two sets of probes, of which a tenth was measured on the default model."""
        return 12_000.0


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


def measure_imported(
    model: Model, record: dict[str, Any], parts: dict[str, Pieces], progress: Progress | None = None
) -> xr.Dataset:
    """How well imported probes read held-out text, which their card says from then on."""
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
    result = Findings(model, record, 0, _groups_of(material, offsets), pair, hits).result()
    card = {key: value for key, value in probes.card.items() if key != "quality"}
    card |= {"probes": [rows[key] for key in sorted(rows)], "measured_on": record, "accuracy": card_rows(result)}
    path = default_path(model.identity.key, "imported")
    with joining(path):
        if imported_of(model).digest == probes.digest:  # others that came meanwhile are not measured
            save_probes(replace(probes, card=card), path)
    return result


def imported_of(model: Model) -> ReadoutProbes:
    """The imported probes of a model; UnavailableError where there are none."""
    probes = find(model.identity.key, kind="imported")
    if probes is None:
        raise UnavailableError(f"no imported probes of {model.name}", "probes of these weights", GET["imported"])
    return probes


def card_rows(result: xr.Dataset) -> dict[str, list[dict[str, Any]]]:
    """The numbers of a result as a card keeps them: known ones only, a row for each, to four decimals; the ends of an
    interval are None where there are too few documents for one."""

    def table(names: dict[str, str]) -> list[dict[str, Any]]:
        frame = result[list(names)].rename(names).to_dataframe().reset_index()
        frame = frame.dropna(subset=next(iter(names.values()))).round(4)
        rows: Any = frame.to_dict("records")
        return [{key: None if value != value else value for key, value in row.items()} for row in rows]

    kept = {}
    tables = {"rows": "probe_accuracy", "rows_random": "probe_accuracy_random"}
    for key, name in (tables | {n: n for n in ("excess_drop", "excess_drop_random", "excess_over_random")}).items():
        if name in result:
            value = "accuracy" if key.startswith("rows") else "excess_drop"
            kept[key] = table({name: value, f"{name}_low": "low", f"{name}_high": "high"})
    return kept


def _join_card(model: Model, kind: str, record: dict[str, Any], recipe: Recipe, result: xr.Dataset) -> None:
    """Keep a complete study in the card of the cached probes, where they come from the same text and recipe."""
    path = default_path(model.identity.key, kind)
    with joining(path):
        probes = find(model.identity.key, kind=kind)
        if probes is None or not known_of(probes, record, recipe):
            return
        joined = dict(probes.card.get("accuracy", {}))
        for name, rows in card_rows(result).items():
            before = {_place(row): row for row in joined.get(name, ())}  # depths of earlier studies stay
            joined[name] = list((before | {_place(row): row for row in rows}).values())
        card = {**probes.card, "accuracy": joined}
        save_probes(replace(probes, card=card), path)


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
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
    return {key: training.finished(*key)[0]["hits"].numpy().astype(bool) for key in keys}


def _groups_of(material: Material, offsets: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
    """For every offset, where each held-out token with a target stands: what `cells_of` takes beside the hits."""
    pieces = material.parts["test"]
    spans = [t.spans for t in pieces.tokens]
    found = {}
    for offset in offsets:
        at, labels = material.labels("test", offset)
        masks = place_masks(spans, offset, pieces.first)
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
class Findings:
    """What was found so far, and how it becomes a result.

    groups: `_groups_of` by offset. pair: the depths that are compared. hits: by (depth, offset), of the model and of
    its random twin.
    """

    model: Model
    record: dict[str, Any]
    epochs: int
    groups: Groups = field(repr=False)
    pair: tuple[int, int]
    hits: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)
    twin_hits: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)

    def result(self) -> xr.Dataset:
        """All that is there; NaN where nothing was measured."""
        done, offsets = sorted({depth for depth, _ in self.hits}), list(self.groups)
        variables = variables_of(self.groups, self.hits, done, self.pair, "")
        if self.twin_hits:
            variables |= variables_of(self.groups, self.twin_hits, done, self.pair, "_random")
            variables |= variables_over_random(self.groups, self.hits, self.twin_hits, self.pair)
        coords = {"depth": done, "offset": offsets, "group": list(GROUPS), "component": list(CONTROLS)}
        result = identified(dataset(coords=coords, **variables), self.model)
        return result.assign_attrs(
            early=self.pair[0], late=self.pair[1], corpus=self.record["name"], corpus_digest=self.record["digest"],
            epochs=self.epochs, summary=_summary(result, self.pair),
        )  # fmt: skip


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
    """`+0.13 [-0.01, +0.22] (not shown)`: an interval that holds 0 shows nothing, however near its end 0 lies."""
    at = {"offset": offset, "component": "type-matched"}
    value, low, high = (float(result[f"{name}{end}"].sel(at)) for end in ("", "_low", "_high"))
    if np.isnan(value) or np.isnan(low):
        return "too few"
    verdict = "above 0 on this text" if low > 0 else "below 0 on this text" if high < 0 else "not shown"
    return f"{change(value)} [{change(low)}, {change(high)}] ({verdict})"


VIEW = View(
    TokenErasureAccuracy,
    question="At which depth do the pieces of a word stop being readable, and more so than elsewhere?",
    asks=(
        Ask("kind", "Measure probes of the kind"),
        Ask("depths", "at depths"),
        Ask("epochs", "trained for", unit="passes"),
        Ask("against", "Hold last tokens of words against"),
        Ask("offset", "where probes name the token at", unit="(0: itself)"),
    ),
    figures=(accuracy_figure, drop_figure),
    display=Display,
)
