"""Readout probes as they are kept: one safetensors file whose header holds the card, and the card as JSON beside it.

The card says on which weights and which text they were trained, how the text was split, and how often each probe names
the right token of held-out documents, with an interval. Maps and biases are kept as float16 and used as they are read,
so that a probe that was read back gives identical probabilities.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes

from probes.erasure.trained.card import need_card, need_tensors
from probes.erasure.trained.fit import log_probs
from workbench.arguments import fitted
from workbench.errors import FileError, InputError, RefusedError, UnavailableError, in_words
from workbench.files import write_whole
from workbench.loading.bundled import cache_dir
from workbench.models.model import Identity

__all__ = [
    "FILES",
    "FORMAT",
    "ReadoutProbes",
    "about",
    "default_path",
    "find",
    "joining",
    "load_probes",
    "packed",
    "save_probes",
    "unpacked",
]

FORMAT = 2  # with a checksum over numbers and card
# By kind: those that are made here, by their recipe, and those that a user brought.
FILES = {"factored": "erasure", "linear": "erasure-linear", "imported": "erasure-imported"}
_PATIENCE = 60.0  # seconds; adding takes about one
_TRAIN = "Train them with `workbench train erasure-probes`"


@dataclass(frozen=True, eq=False)
class ReadoutProbes:
    """Probes of one model for some (depth, offset).

    classes: token ids that can be named `[class]`; counts: how often each was a training token. scales: by depth
    (mean, std) `[d_model]` of states divided by their root mean square. maps: by (depth, offset) the map
    `[d_model, d_model]` into the space of the unembedding's rows (of a factored probe) or `[d_model, class]`, and the
    bias `[class]`. hits: whether each token of the held-out part that has a target was named, in reading order: the
    evidence behind the card; imported probes have none.
    """

    card: dict[str, Any]
    classes: torch.Tensor = field(repr=False)
    counts: torch.Tensor = field(repr=False)
    scales: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(repr=False)
    maps: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = field(repr=False)
    hits: dict[tuple[int, int], torch.Tensor] = field(repr=False)

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths with a probe, ascending."""
        return tuple(sorted({depth for depth, _ in self.maps}))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offsets with a probe: 0, -1, -2, ..."""
        return tuple(sorted({offset for _, offset in self.maps}, reverse=True))

    @property
    def kind(self) -> str:
        """One of `FILES`: "factored", "linear" or "imported"."""
        return self.card.get("recipe", {}).get("kind", "factored")

    @property
    def reads_raw(self) -> bool:
        """Whether it takes states as they are, and not divided by their root mean square: published probes do."""
        return self.kind == "imported"

    @property
    def numbers(self) -> dict[tuple[int, int], dict[str, Any]]:
        """The card's row of every probe by (depth, offset)."""
        return {(row["depth"], row["offset"]): row for row in self.card["probes"]}

    @property
    def digest(self) -> str:
        """sha256 of the numbers, 64 hex digits: what a result that was made with them is keyed by."""
        return self.card["digest"]

    def classes_with(self, ids: np.ndarray) -> tuple[torch.Tensor, dict[int, int]]:
        """The classes and, behind them, ids that the corpus never held; and the index of every id among them."""
        known = set(self.classes.tolist())
        extra = sorted({int(i) for i in ids} - known)
        classes = torch.cat([self.classes, torch.tensor(extra, dtype=torch.long)])
        return classes, {int(token): index for index, token in enumerate(classes.tolist())}

    def score(
        self, depth: int, offset: int, states: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probability (nats) of targets, whether they come out on top, and the top class's index.

        states: `[token, d_model]`, divided by their root mean square unless `reads_raw`. rows: the unembedding's of
        `classes_with(...)`; classes beyond `classes` take the lowest bias there is, and cannot be named by a probe that
        is not factored. targets: indices among the rows, -1 for none.
        """
        if (depth, offset) not in self.maps:
            had = ", ".join(f"depth {d} offset {o}" for d, o in sorted(self.maps))
            raise InputError(f"depth {depth}, offset {offset}", f"a probe that was trained: {had}", _TRAIN)
        W, b = (value.float() for value in self.maps[depth, offset])
        mean, std = self.scales[depth]
        x, extra = (states.float() - mean) / std, len(rows) - len(b)
        if self.kind == "factored":
            return log_probs(x, W, torch.cat([b, b.min().expand(extra)]), rows, targets)
        W = torch.cat([W, W.new_zeros(len(W), extra)], dim=1)
        return log_probs(x, W, torch.cat([b, b.new_full((extra,), -torch.inf)]), None, targets)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All numbers by the names they have in the file."""
        found = {"classes": self.classes.to(torch.int32), "counts": self.counts.to(torch.int32)}
        for depth, (mean, std) in self.scales.items():
            found |= {f"mean.{depth}": mean, f"std.{depth}": std}
        for (depth, offset), (W, b) in self.maps.items():
            found |= {f"map.{depth}.{offset}": W, f"bias.{depth}.{offset}": b}
            if (depth, offset) in self.hits:
                found[f"hits.{depth}.{offset}"] = self.hits[depth, offset]
        return {name: tensor.contiguous() for name, tensor in found.items()}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return digest.hexdigest()


def about(identity: Identity) -> dict[str, str]:
    """A model as a card names it."""
    return {name: getattr(identity, name) for name in ("name", "key", "weights_hash", "badge")}


def default_path(key: str, kind: str = "factored") -> Path:
    """Where the probes of a model are looked for: in the user's cache, by `Identity.key`: the same weights with other
    settings (a base of rotations, say) have other states. kind: one of `FILES`."""
    return cache_dir() / "probes" / key[:16] / f"{FILES[kind]}.safetensors"


def save_probes(probes: ReadoutProbes, path: str | Path) -> ReadoutProbes:
    """Write the file and the card beside it, each whole or not at all; returns the probes with their digest."""
    path, tensors = Path(path), probes.tensors()
    card = {**probes.card, "format": FORMAT, "digest": _digest(tensors)}
    write_whole(path, packed(tensors, card))
    write_whole(path.with_suffix(".json"), (json.dumps(card, indent=1, sort_keys=True) + "\n").encode())
    return replace(probes, card=card)


@contextmanager
def joining(path: Path) -> Iterator[None]:
    """One process at a time adds to a file of probes: else the last to write loses what another added meanwhile.

    UnavailableError where another one does not come to its end.
    """
    lock = FileLock(path.parent / f".{path.stem}.lock", timeout=_PATIENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UnavailableError(f"{path}, which another process writes", "that it ends", "Try again later") from None
    except OSError:  # nothing can be locked here, as where another user's lock lies: who cannot write says so
        pass
    try:
        yield
    finally:
        lock.release()


def packed(tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> bytes:
    """Tensors and a card as safetensors, with the sha256 of both: `unpacked` verifies it."""
    text = json.dumps(card, sort_keys=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save_bytes(tensors, metadata={"card": text, "sha256": _seal(text, tensors)})


def unpacked(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `packed` made. Raises FileError where it is not as it was written, FileNotFoundError for none."""
    if not os.path.isfile(path):  # a pipe would be waited for without end
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            text = about["card"]
            # Clones: of what stays a page of the file, whoever writes over it changes the numbers.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
        found = json.loads(text)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, RecursionError) as error:
        raise FileError(f"a damaged probe file at {path} ({in_words(error)})", "readout probes", _TRAIN) from error
    if about.get("sha256") != _seal(text, tensors):
        raise FileError(f"a probe file at {path} that is not as it was written", "readout probes", _TRAIN)
    return tensors, found


def _seal(text: str, tensors: dict[str, torch.Tensor]) -> str:
    return sha256(f"{text}\n{_digest(tensors)}".encode()).hexdigest()


def load_probes(path: str | Path, key: str) -> ReadoutProbes:
    """Read probes for the model of this `Identity.key`.

    Raises FileError for a missing, cut or damaged file, RefusedError for probes of other weights or settings.
    """
    path = Path(path)
    try:
        tensors, card = unpacked(path)
    except FileNotFoundError as error:
        raise FileError(f"no file at {path}", "readout probes", _TRAIN) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT or card.get("digest") != _digest(tensors):
        raise FileError(f"a probe file at {path} that is not as it was written", "readout probes", _TRAIN)
    try:
        made_of = need_card(card)["model"]
        need_tensors(card, tensors)
    except (KeyError, ValueError) as error:
        raise FileError(f"a probe file at {path} with {in_words(error)}", "readout probes", _TRAIN) from error
    if made_of.get("key") != key:  # an older file names its weights alone
        settings = str(made_of["key"])[:12] if "key" in made_of else "that are not named"
        raise RefusedError(
            f"probes of {made_of['name']} with weights {made_of['weights_hash'][:12]} and settings {settings}",
            f"probes of these weights and settings ({key[:12]})",
            f"{_TRAIN} on this model",
        )
    return _from_tensors(card, tensors)


def _from_tensors(card: dict[str, Any], tensors: dict[str, torch.Tensor]) -> ReadoutProbes:
    scales, maps, hits = {}, {}, {}
    for name, tensor in tensors.items():
        kind, *key = name.split(".")
        if kind == "mean":
            scales[int(key[0])] = (tensor, tensors[f"std.{key[0]}"])
        if kind == "map":
            maps[int(key[0]), int(key[1])] = (tensor, tensors[f"bias.{key[0]}.{key[1]}"])
        if kind == "hits":
            hits[int(key[0]), int(key[1])] = tensor
    return ReadoutProbes(card, tensors["classes"].long(), tensors["counts"].long(), scales, maps, hits)


@fitted()
def find(key: str, path: str | Path | None = None, kind: str = "factored") -> ReadoutProbes | None:
    """The probes of a model from a file, or from the user's cache (None where it has none). Errors as `load_probes`."""
    if kind not in FILES:
        raise InputError(f"probes of the kind {kind!r}", f"one of {', '.join(FILES)}", "Choose one of these")
    wanted = default_path(key, kind) if path is None else Path(path)
    try:
        state = wanted.stat()
    except (OSError, ValueError):  # a NUL is in no name
        if path is None:
            return None
        return load_probes(wanted, key)
    found = state.st_ino, state.st_ctime_ns, state.st_mtime_ns, state.st_size  # a copy keeps size and time
    return _read_once(str(wanted), key, found)


@lru_cache(maxsize=4)
def _read_once(path: str, key: str, state: tuple[int, ...]) -> ReadoutProbes:
    """Read and hashed once while the file stays as it is: a prompt should not pay for it."""
    return load_probes(path, key)
