"""Which weights a model has: their hash, as they are now.

The hash of weights that come from files is computed once for each content of the files and kept. Weights that a user
holds may change at any time, in ways that leave no trace (through `.data`, through NumPy): before a pass a cheap
checksum over all of them is compared.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

import torch

from workbench.errors import RefusedError, WorkbenchError
from workbench.files import cache_dir
from workbench.forks import own_lock_after_fork
from workbench.loading.files import digests
from workbench.pauses import pausing

__all__ = ["Followed", "hash_of_files", "keep_hash", "traces", "weights_hash"]

Parameters = Sequence[tuple[str, torch.Tensor]]
Instrument = TypeVar("Instrument")


class Followed(Generic[Instrument]):
    """An instrument around weights that may change: called, it is the one around the weights as they are now.

    made: the first one. look: what of the model is equal as long as nothing changed, as its holder has it (`traces`).
    again: makes another one. tensors: the weights.
    """

    def __init__(
        self,
        made: Instrument,
        look: Callable[[], object],
        again: Callable[[], Instrument],
        tensors: Callable[[], Iterable[torch.Tensor]] = tuple,
    ) -> None:
        self._made, self._look, self._again, self._tensors = made, look, again, tensors
        self._seen, self._lock = look(), threading.Lock()
        own_lock_after_fork(self)

    def forked(self) -> None:
        """In a process that was split off while another thread looked: nobody looks there."""
        self._lock = threading.Lock()

    def __call__(self) -> Instrument:
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                with pausing(lambda: None):  # who ran at a pause would ask for the instrument, and wait for this lock
                    self._made, self._seen = self._steadily(), seen
            return self._made

    def _steadily(self) -> Instrument:
        """Another instrument; RefusedError where the weights went on changing, of which its checks know nothing."""
        steady = self.watched()
        try:
            made = self._again()
        except WorkbenchError as error:
            if steady():
                raise
            raise _unsteady() from error
        if not steady():
            raise _unsteady()
        return made

    def watched(self) -> Callable[[], bool]:
        """What says from now on whether nothing was written into the weights: by what PyTorch counts, in microseconds.

        What is written through `.data` is not counted, and is seen at the next look.
        """
        seen = [(one, one._version, one.data_ptr()) for one in self._tensors() if _counts(one)]
        return lambda: all(one._version == count and one.data_ptr() == place for one, count, place in seen)


def _unsteady() -> RefusedError:
    return RefusedError(
        "weights that were changed while they were looked at", "weights that stay as they are meanwhile", "Try again"
    )


def _counts(tensor: torch.Tensor) -> bool:
    return not tensor.is_inference() and tensor.layout is torch.strided


def weights_hash(parameters: Parameters) -> str:
    """sha256 over names, shapes, dtypes and bytes, sorted by name: the same however the model was loaded."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters, key=lambda item: item[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_of_files(directory: Path, dtype: torch.dtype) -> tuple[str, str | None]:
    """The name under which the hash of a directory's weights is kept, and the hash where it was computed before.

    The name is of the content of its files, the dtype they are read in, and the library that reads them.
    """
    files = sorted([directory / "config.json", *directory.glob("*.safetensors"), *directory.glob("*.index.json")])
    content = [[file.name, digests.sha256(file, cache_dir() / "digests")] for file in files]
    said = json.dumps([content, str(dtype), version("transformers"), 1])
    name = f"weights-{hashlib.sha256(said.encode()).hexdigest()}"
    return name, digests.kept(name, cache_dir() / "digests")


def keep_hash(name: str, value: str) -> None:
    """Keep a hash under a name of `hash_of_files`."""
    digests.keep(name, value, cache_dir() / "digests")


def traces(parameters: Callable[[], Iterable[tuple[str, torch.Tensor]]], *, thorough: bool) -> tuple[object, ...]:
    """What tells that weights changed: equal as long as none did.

    Each tensor's place, its count of changes, and, where thorough, a sum over all of its bits and a sample of them
    (0.1 s for 134 million weights): what is written through `.data` is not counted by PyTorch.
    """
    found: list[object] = []
    for name, tensor in parameters():
        counted = -1 if tensor.is_inference() else tensor._version
        is_plain = tensor.layout is torch.strided  # a sparse one has no one place, and is refused
        found.append(
            (name, id(tensor), tensor.data_ptr() if is_plain else -1, tuple(tensor.shape), tensor.dtype, counted)
        )
        if thorough and is_plain and not tensor.is_meta:
            found.append(_checksum(tensor.detach()))
    return tuple(found)


def _checksum(tensor: torch.Tensor) -> tuple[int, int, bytes]:
    """Sum over eight bytes at a time, over what is left, and every so manieth number (sums see no exchange)."""
    flat = tensor.contiguous().view(-1)
    sample = flat[:: max(1, flat.numel() // 64)].contiguous().view(torch.uint8).cpu().numpy().tobytes()
    words = flat.view(torch.uint8)
    if words.storage_offset() % 8:
        words = words.clone()
    wide = words[: words.numel() // 8 * 8].view(torch.int64)
    return int(wide.sum()), int(words[wide.numel() * 8 :].sum()), sample
