"""Train readout probes for some depths and offsets of a model, with a card of how good they are.

Documents are split into a part to learn from, one to choose with, and one that only the card sees. Work goes depth by
depth; every probe that is done is kept beside the place of the final file, so a stopped run goes on.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.erasure.trained.artifact import (
    FORMAT,
    ReadoutProbes,
    about,
    default_path,
    find,
    joining,
    packed,
    save_probes,
    unpacked,
)
from probes.erasure.trained.control import random_twin
from probes.erasure.trained.fit import closed_form, fit, fit_linear, log_probs, whitening
from probes.erasure.trained.recipe import OFFSETS, SAID, Recipe, recommended_depths
from probes.erasure.trained.states import Pieces, checked_depths, collect, pieces_digest, pieces_of
from probes.erasure.trained.words import place_masks
from workbench.arguments import fitted
from workbench.corpora import Corpus, python_corpus
from workbench.errors import InputError, RefusedError, UnavailableError
from workbench.files import clear_partials, write_whole
from workbench.models.model import Model
from workbench.statistics import ratio_interval

__all__ = [
    "MIN_TOKENS",
    "RECIPE",
    "Material",
    "Training",
    "by_document",
    "known_of",
    "measured",
    "parts_of",
    "prepare",
    "recommended_depths",
    "train",
    "work_name",
]

RECIPE = Recipe()
_TOGETHER = 4  # depths read in one pass: 0.5 GB of states at 110,000 tokens and d_model 576
_PARTS = ("train", "val", "test")
_READING = 0.25  # of the work, about
_BROKEN_OFF = 86_400.0  # seconds without a new part after which nobody is expected to go on
MIN_TOKENS = 2_000  # to learn from: with fewer a probe names little but the commonest tokens

Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Material:
    """A corpus as probes learn from it.

    classes: token ids that occur `[class]`; counts: in the training part; rows: the model's unembedding of the classes,
    float32; white, to_white: whitened rows and the whitening map.
    """

    parts: dict[str, Pieces]
    classes: torch.Tensor = field(repr=False)
    counts: torch.Tensor = field(repr=False)
    rows: torch.Tensor = field(repr=False)
    white: torch.Tensor = field(repr=False)
    to_white: torch.Tensor = field(repr=False)

    def labels(self, part: str, offset: int) -> tuple[np.ndarray, torch.Tensor]:
        """Indices of tokens of a part that have a target, and the target's class index."""
        at, ids = self.parts[part].targets(offset)
        return at, torch.from_numpy(np.searchsorted(self.classes.numpy(), ids))


def prepare(model: Model, parts: dict[str, Pieces]) -> Material:
    """Classes and whitened rows for pieces of a "train", a "val" and a "test" part.

    Raises InputError for too little text, RefusedError for a model with interventions: probes are kept without them.
    """
    if model.interventions:
        raise RefusedError(
            f"probes of {model.name} with {', '.join(map(str, model.interventions))}",
            "the model as it is: probes are kept by its weights and settings",
            "Leave the interventions out",
        )
    if len(parts["train"]) < MIN_TOKENS:
        raise InputError(
            f"a corpus with {len(parts['train'])} tokens to learn from",
            f"at least {MIN_TOKENS}; 75,000 is what the default corpus has",
            "Add documents",
        )
    classes = np.unique(np.concatenate([part.ids for part in parts.values()]))
    counts = np.bincount(parts["train"].ids, minlength=int(classes.max()) + 1)[classes]
    W_U = model.readout.W_U.detach()
    rows = W_U[torch.from_numpy(classes).to(W_U.device)].float().cpu()
    centre, to_white = whitening(rows)
    as_tensor = torch.from_numpy
    return Material(parts, as_tensor(classes), as_tensor(counts), rows, (rows - centre) @ to_white, to_white)


@fitted()
def train(
    model: Model,
    corpus: Corpus | dict[str, Pieces] | None = None,
    *,
    depths: Sequence[int] | None = None,
    offsets: Sequence[int] = OFFSETS,
    recipe: Recipe = RECIPE,
    path: str | Path | None = None,
    control: bool = False,
    again: bool = False,
    progress: Progress | None = None,
) -> ReadoutProbes:
    """Train, save and return probes.

    corpus: None for the interpreter's documentation; or pieces of the parts "train", "val" and "test". depths: 0 the
    embedding, d the output of block d-1; None for the recommended two. control: measure the same recipe on the model
    with random weights too (as long again), for the card. path: None for the place where analyses look. again: also
    where the file has probes of the same text and recipe; otherwise those are kept and new ones join them. progress:
    (share, text); it may raise to stop, and the next call goes on.
    """
    depths = checked_depths(depths or recommended_depths(model.sizes.n_layers), offsets, model)
    record, parts = parts_of(model, corpus, recipe.seed)
    elsewhere = path is not None
    path = default_path(model.identity.key, recipe.kind) if path is None else Path(path)
    material = prepare(model, parts)
    work = Training(model, material, recipe, path.with_suffix(".parts") / work_name(model, record, recipe), progress)
    work.shares = (0.0, 0.5) if control else (0.0, 1.0)
    before = None if again else _there(path, model)
    work.known = known_of(before, record, recipe)
    clear_partials(work.folder)
    work.run(depths, offsets)
    random = {"control": _control(model, parts, work, depths, offsets)} if control else {}
    with nullcontext() if elsewhere else joining(path):
        before = None if again else _there(path, model)  # another process may have trained others meanwhile
        work.known |= known_of(before, record, recipe)
        old: dict[str, Any] = before.card if before is not None and work.known else {}
        card: dict[str, Any] = {key: old[key] for key in ("control", "accuracy") if key in old}
        card |= _card(model, record, material, recipe) | random
        probes = save_probes(_assembled(work, card, {(d, o) for d in depths for o in offsets}), path)
    _clear(work.folder)
    return probes


def _assembled(work: "Training", card: dict[str, Any], asked: set[tuple[int, int]]) -> ReadoutProbes:
    """What is known and what was asked for, in the order of depths, as one."""
    keys = sorted({*work.known, *asked}, key=lambda key: (key[0], -key[1]))
    done = {key: work.finished(*key) for key in keys}
    return ReadoutProbes(
        card | {"probes": [numbers for _, numbers in done.values()]},
        work.material.classes,
        work.material.counts,
        {depth: (tensors["mean"], tensors["std"]) for (depth, _), (tensors, _) in done.items()},
        {key: (tensors["map"], tensors["bias"]) for key, (tensors, _) in done.items()},
        {key: tensors["hits"] for key, (tensors, _) in done.items()},
    )


def _clear(own: Path) -> None:
    """Take away the parts of a run that is done, and of those that were broken off: not those of another process."""
    with suppress(OSError):
        for folder in own.parent.iterdir():
            if folder.name.startswith(own.name) or time.time() - folder.stat().st_mtime > _BROKEN_OFF:
                shutil.rmtree(folder, ignore_errors=True)
        own.parent.rmdir()


def _there(path: Path, model: Model) -> ReadoutProbes | None:
    """What a file holds for this model; None where it is missing, damaged, or of other weights: it is replaced then."""
    try:
        return find(model.identity.key, path)
    except (UnavailableError, RefusedError):
        return None


def known_of(
    probes: ReadoutProbes | None, record: dict[str, Any], recipe: Recipe
) -> dict[tuple[int, int], tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """Tensors and card of probes that were made from this text by this recipe, as `Training.stored` has them."""
    if probes is None or probes.card["corpus"]["digest"] != record["digest"]:
        return {}
    if probes.kind == "imported" or Recipe(**probes.card["recipe"]) != recipe:
        return {}
    found = {}
    for (depth, offset), (W, b) in probes.maps.items():
        mean, std = probes.scales[depth]
        tensors = {"map": W, "bias": b, "mean": mean, "std": std, "hits": probes.hits[depth, offset]}
        found[depth, offset] = (tensors, probes.numbers[depth, offset])
    return found


def _control(
    model: Model, parts: dict[str, Pieces], work: "Training", depths: Sequence[int], offsets: Sequence[int]
) -> dict[str, Any]:
    """The same recipe on random weights."""
    twin = random_twin(model)
    folder = work.folder.with_name(work.folder.name + "-random")
    other = Training(twin, prepare(twin, parts), work.recipe, folder, work.progress, (0.5, 1.0))
    other.run(depths, offsets)
    return {"model": twin.name, "probes": [other.finished(depth, offset)[1] for depth in depths for offset in offsets]}


def parts_of(
    model: Model, corpus: Corpus | dict[str, Pieces] | None, seed: int
) -> tuple[dict[str, Any], dict[str, Pieces]]:
    """What identifies a corpus (None: the interpreter's documentation), and its pieces by part."""
    if isinstance(corpus, dict):
        odd = [name for name in _PARTS if not isinstance(corpus.get(name), Pieces)]
        if odd:
            raise InputError(f"no pieces of {', '.join(odd)} in a corpus", f"{', '.join(_PARTS)}", "Give all three")
        return {"name": "pieces", "digest": pieces_digest(corpus)}, corpus
    corpus = corpus or python_corpus()
    parts = {name: pieces_of(model, part) for name, part in corpus.split(seed).items()}
    return {"name": corpus.name, "digest": corpus.digest, "python": corpus.python}, parts


def work_name(model: Model, record: dict[str, Any], recipe: Recipe) -> str:
    """Names the work: parts of another model, text or recipe are never taken up again."""
    how = {key: value for key, value in asdict(recipe).items() if (key, value) != ("kind", "factored")}
    text = json.dumps([model.identity.key, record["digest"], how, FORMAT])
    return sha256(text.encode()).hexdigest()[:16]


def _card(model: Model, record: dict[str, Any], material: Material, recipe: Recipe) -> dict[str, Any]:
    identity = model.identity
    return {
        "kind": SAID[recipe.kind],
        "model": about(identity),
        "corpus": record,
        "split": {
            name: {"tokens": len(part), "documents": len(np.unique(part.document))}
            for name, part in material.parts.items()
        },
        "classes": len(material.classes),
        "bos": bool(material.parts["train"].first),
        "recipe": asdict(recipe),
    }


@dataclass(eq=False)
class Training:
    """Training of one model's probes. What is done lies in `folder`, one file for each probe, and is not done again.

    progress: (share, text); shares: where in the whole this training lies. known: probes that are there already; done:
    what was trained or read here, since another process may take the files away.
    """

    model: Model
    material: Material
    recipe: Recipe
    folder: Path
    progress: Progress | None = None
    shares: tuple[float, float] = (0.0, 1.0)
    span: tuple[float, float] = (0.0, 1.0)
    known: dict[tuple[int, int], tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict, repr=False)
    done: dict[tuple[int, int], tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict, repr=False)

    def run(self, depths: Sequence[int], offsets: Sequence[int]) -> None:
        """Train what is missing, some depths in one pass over the text."""
        wanted = [d for d in depths if any(self.stored(d, offset) is None for offset in offsets)]
        for start in range(0, len(wanted), _TOGETHER):
            group = wanted[start : start + _TOGETHER]
            self.span = (start / len(wanted), len(group) / len(wanted))
            states = self._states(group)
            for index, depth in enumerate(group):
                x = {part: states[part].pop(depth) for part in states}
                self._depth(
                    depth, offsets, x, (_READING + (1 - _READING) * index / len(group), (1 - _READING) / len(group))
                )

    def finished(self, depth: int, offset: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """`stored` of a probe that run() has come by, which therefore is there."""
        found = self.stored(depth, offset)
        assert found is not None, f"run() leaves the probe of depth {depth}, offset {offset} behind"
        return found

    def stored(self, depth: int, offset: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """A finished probe: its tensors (map, bias, mean, std, hits) and its numbers. None where it is not done."""
        for there in (self.known, self.done):
            if (depth, offset) in there:
                return there[depth, offset]
        try:
            self.done[depth, offset] = unpacked(self._file(depth, offset))
        except (FileNotFoundError, UnavailableError):
            return None  # not done, or not as it was written: it will be trained
        return self.done[depth, offset]

    def _file(self, depth: int, offset: int) -> Path:
        return self.folder / f"probe.{depth}.{offset}.safetensors"

    def _report(self, share: float, text: str) -> None:
        if self.progress is not None:
            inner = self.span[0] + self.span[1] * share
            self.progress(self.shares[0] + (self.shares[1] - self.shares[0]) * inner, text)

    def _states(self, depths: Sequence[int]) -> dict[str, dict[int, torch.Tensor]]:
        """States of every part at some depths; reading is the first quarter of the work."""
        parts = self.material.parts
        total, done, found = sum(map(len, parts.values())), 0, {}
        for name, part in parts.items():
            report = lambda s, done=done, part=part: self._report(
                _READING * (done + s * len(part)) / total, f"reading states at depths {', '.join(map(str, depths))}"
            )
            found[name] = collect(self.model, part, depths, report)
            done += len(part)
        return found

    def _depth(
        self, depth: int, offsets: Sequence[int], x: dict[str, torch.Tensor], share: tuple[float, float]
    ) -> None:
        train = self.material.parts["train"]
        text = x["train"][torch.from_numpy(train.pos >= train.first)].float()
        mean, std = text.mean(0), text.std(0).clamp_min(1e-6)
        x = {name: (states.float() - mean) / std for name, states in x.items()}
        for index, offset in enumerate(offsets):
            if self.stored(depth, offset) is None:
                base, size = share[0] + share[1] * index / len(offsets), share[1] / len(offsets)
                report = lambda s, base=base, size=size, offset=offset: self._report(
                    base + size * s, f"training: depth {depth}, offset {offset}"
                )
                self._probe(depth, offset, x, {"mean": mean, "std": std}, report)

    def _probe(
        self,
        depth: int,
        offset: int,
        x: dict[str, torch.Tensor],
        scale: dict[str, torch.Tensor],
        report: Callable[[float], None] | None,
    ) -> None:
        material, started = self.material, time.perf_counter()
        at, y = material.labels("train", offset)
        at_val, y_val = material.labels("val", offset)
        rows = x["train"][torch.from_numpy(at)]
        if self.recipe.kind == "linear":
            W = fit_linear(rows, y, len(material.classes), self.recipe, report)
            kept = {"map": W.half(), "bias": torch.zeros(len(material.classes), dtype=torch.float16), **scale}
        else:
            start = closed_form(rows, y, material.white, x["val"][torch.from_numpy(at_val)], y_val)
            W, b = fit(rows, y, material.white, start, self.recipe, report)
            kept = {"map": (W @ material.to_white).half(), "bias": b.half(), **scale}
        card = {"depth": depth, "offset": offset, "seconds": round(time.perf_counter() - started, 1)}
        for part in ("val", "test"):
            hits, found = self._measure(part, offset, x[part], kept)
            card |= {f"{part}_{key}": value for key, value in found.items()}
        self._store(depth, offset, kept | {"hits": hits}, card)

    def _measure(
        self, part: str, offset: int, x: torch.Tensor, kept: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Hits (of every token with a target), and the numbers of `measured`, of what is kept."""
        at, y = self.material.labels(part, offset)
        W, b = kept["map"].float(), kept["bias"].float()
        rows = None if self.recipe.kind == "linear" else self.material.rows
        own, hit, _ = log_probs(x[torch.from_numpy(at)], W, b, rows, y)
        return hit.to(torch.uint8), measured(self.material.parts[part], offset, at, own, hit)

    def _store(self, depth: int, offset: int, tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> None:
        write_whole(self._file(depth, offset), packed(tensors, card))
        self.done[depth, offset] = tensors, card


def measured(pieces: Pieces, offset: int, at: np.ndarray, own: torch.Tensor, hit: torch.Tensor) -> dict[str, Any]:
    """A card's numbers from log-probabilities and hits of tokens `at` of some pieces.

    accuracy: with an interval over documents. nll: mean negative log-likelihood, nats. last_accuracy: at the last
    tokens of words. None where there is nothing to count.
    """
    sums, counts = by_document(hit.numpy(), pieces.document[at])
    low, high = ratio_interval(sums, counts, bounds=(0, 1))
    last = place_masks([t.spans for t in pieces.tokens], offset, pieces.first)["last"][at]
    found = {"accuracy": sums.sum() / counts.sum(), "low": low, "high": high, "nll": float(-own.mean())}
    found["last_accuracy"] = hit.numpy()[last].mean() if last.any() else np.nan
    found = {key: None if np.isnan(value) else round(float(value), 4) for key, value in found.items()}
    return found | {"tokens": len(at), "last_tokens": int(last.sum())}


def by_document(values: np.ndarray, document: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values and their number for each document that has any."""
    names, index = np.unique(document, return_inverse=True)
    return np.bincount(index, values.astype(np.float64), len(names)), np.bincount(index, minlength=len(names))
