"""How well tokens can be read at every depth, for last tokens of words and for controls: where the honest story lives.

For each (depth, offset) a probe is trained on one part of the text and asked on another; accuracy is the share of
tokens it names. Beside it stands the same recipe on random weights around the trained embedding: what architecture and
frequency alone give. That control is weak, since random weights hardly carry the token before at all: it bounds
artefacts, and does not show what a model that carries it would do.

Probes of the user's cache are used where they were made by the same recipe from the same text; the others are trained,
which takes most of the time. What is done is kept, so a run that was stopped goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from probes.token_erasure.contrasts import CONTROLS, GROUPS, accuracies, cells_of, excess_drop, resampled
from probes.token_erasure.reading import OFFSETS, identified
from probes.trained.artifact import default_path, find
from probes.trained.control import random_twin
from probes.trained.states import Pieces
from probes.trained.training import Material, Recipe, Training, parts_of, prepare, recommended_depths, work_name
from probes.trained.words import place_masks
from workbench.catalog import Entry, Param
from workbench.corpora import Corpus
from workbench.errors import InputError
from workbench.results import dataset

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.models.model import Model

__all__ = ["ACCURACY", "accuracy_figure", "accuracy_study", "drop_figure", "parsed_depths"]

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
    epochs: int = 3,
    seed: int = 0,
    corpus: Corpus | dict[str, Pieces] | None = None,
    folder: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Accuracy by depth, offset and group, and the excess drop against every control.

    Yields a Dataset after every few depths, the last complete: `probe_accuracy` (depth, offset, group) with `_low` and
    `_high`, `tokens` (offset, group), `excess_drop` (offset, threshold) with `_low` and `_high` over the controls, and
    with `control` the same with `_random`. depths: see `parsed_depths`. tokens: not used; the text is the corpus's.
    """
    wanted = parsed_depths(depths, model.sizes.n_layers)
    recipe = Recipe(epochs=epochs, seed=seed)
    record, parts = parts_of(model, corpus, seed)
    folder = folder or default_path(model.identity.weights_hash).with_name("accuracy")
    work = folder / work_name(model, record, recipe)
    pair = recommended_depths(model.sizes.n_layers)
    share = len(wanted) / (len(wanted) + 2 * control)
    report = lambda s, text: progress(s) if progress is not None else None
    training = Training(model, prepare(model, parts), recipe, work, report, (0.0, share))
    hits = _kept_hits(model, record, recipe)
    groups = _groups_of(training.material)
    twin_hits: dict = {}
    for batch in _batches(wanted, hits):
        _train(training, batch, hits)
        done = tuple(depth for depth in wanted if (depth, 0) in hits)
        yield _result(model, record, recipe, groups, hits, {}, done, pair)
    if control:
        twin = random_twin(model)
        other = Training(
            twin, prepare(twin, parts), recipe, work.with_name(work.name + "-random"), report, (share, 1.0)
        )
        _train(other, pair, twin_hits)
        yield _result(model, record, recipe, groups, hits, twin_hits, wanted, pair)


def _kept_hits(model: "Model", record: dict, recipe: Recipe) -> dict[tuple[int, int], np.ndarray]:
    """Hits of the probes in the cache, where they were made from the same text by the same recipe."""
    found = find(model.identity.weights_hash)
    if found is None or found.card["corpus"]["digest"] != record["digest"]:
        return {}
    same = all(found.card["recipe"][key] == value for key, value in vars(recipe).items())
    return {key: hits.numpy().astype(bool) for key, hits in found.hits.items()} if same else {}


def _batches(depths: Sequence[int], hits: dict) -> list[tuple[int, ...]]:
    """What is known comes first, then four depths at a time."""
    known = tuple(d for d in depths if all((d, offset) in hits for offset in OFFSETS))
    rest = [d for d in depths if d not in known]
    return [*([known] if known else []), *(tuple(rest[i : i + 4]) for i in range(0, len(rest), 4))]


def _train(training: Training, depths: Sequence[int], hits: dict) -> None:
    training.run([d for d in depths if any((d, offset) not in hits for offset in OFFSETS)], OFFSETS)
    for depth in depths:
        for offset in OFFSETS:
            if (depth, offset) not in hits:
                hits[depth, offset] = training.stored(depth, offset)[0]["hits"].numpy().astype(bool)


def _groups_of(material: Material) -> dict[int, dict[str, np.ndarray]]:
    """For every offset, where each held-out token with a target stands: what `cells_of` takes beside the hits."""
    pieces = material.parts["test"]
    strings = [t.strings for t in pieces.tokens]
    found = {}
    for offset in OFFSETS:
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


def _result(model, record, recipe, groups, hits, twin_hits, done, pair) -> xr.Dataset:
    variables = _measured(groups, hits, done, pair, "")
    if twin_hits:
        variables |= _measured(groups, twin_hits, done, pair, "_random")
    coords = {"depth": list(done), "offset": list(OFFSETS), "group": list(GROUPS), "component": list(CONTROLS)}
    result = dataset(coords=coords, **variables)
    return identified(result, model).assign_attrs(
        early=pair[0], late=pair[1], corpus=record["name"], corpus_digest=record["digest"], epochs=recipe.epochs,
        summary=_summary(result, pair),
    )  # fmt: skip


def _measured(groups, hits, done: Sequence[int], pair, ending: str) -> dict[str, tuple]:
    """Accuracies and excess drops of one model; NaN at depths that were not run."""
    shape = (len(done), len(OFFSETS), len(GROUPS))
    value, low, high = (np.full(shape, np.nan) for _ in range(3))
    excess = {key: np.full((len(OFFSETS), len(CONTROLS)), np.nan) for key in ("value", "low", "high")}
    n = np.zeros(shape[1:])
    for column, offset in enumerate(OFFSETS):
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


def _summary(result: xr.Dataset, pair: tuple[int, int]) -> str:
    """The contrast that was found to hold, with its interval, beside its control; no sentence without its numbers."""

    def said(name: str, offset: int) -> str:
        at = {"offset": offset, "component": "type-matched"}
        value, low, high = (float(result[f"{name}{end}"].sel(at)) for end in ("", "_low", "_high"))
        return "too few" if np.isnan(value) or np.isnan(low) else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"

    text = f"Excess drop at last tokens against tokens of the same type, depth {pair[0]} to {pair[1]}: offset -1 "
    text += f"{said('excess_drop', -1)}, offset 0 {said('excess_drop', 0)}, offset -2 {said('excess_drop', -2)}"
    random = f"; random weights at offset -1 {said('excess_drop_random', -1)}" if "excess_drop_random" in result else ""
    return text + random + "."


def accuracy_figure(result: xr.Dataset) -> "go.Figure":
    """Accuracy at offset -1 by depth, one line for each group."""
    from workbench.figures import series

    return series(
        result.sel(offset=-1, drop=True),
        "probe_accuracy",
        "depth",
        by="group",
        title="The token before, read at every depth",
    )


def accuracy_now_figure(result: xr.Dataset) -> "go.Figure":
    """Accuracy at offset 0 by depth, one line for each group."""
    from workbench.figures import series

    return series(
        result.sel(offset=0, drop=True),
        "probe_accuracy",
        "depth",
        by="group",
        title="The token itself, read at every depth",
    )


def drop_figure(result: xr.Dataset) -> "go.Figure":
    """Excess drop at offset -1 against every control, with its interval; the grey tick is the random-weight model's."""
    from workbench.figures import bars

    part = result.sel(offset=-1, drop=True)
    if "excess_drop_random" in part:
        part = part.assign(excess_drop_null=part["excess_drop_random"])
    return bars(
        part, "excess_drop", "component", title="Excess drop at last tokens of words, offset -1; tick: random weights"
    )


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
    figures=(accuracy_figure, drop_figure, accuracy_now_figure),
    params=(
        Param("depths", str, "auto", "auto (eleven), two (those that erasure compares), or a list such as 1,2,20"),
        Param("control", bool, True, "the same recipe on random weights"),
        Param("epochs", int, 3, "passes over the training text", low=1, high=20),
        Param("seed", int, 0, "of the split and of training", low=0, high=10_000),
    ),
    cost=cost,
)
