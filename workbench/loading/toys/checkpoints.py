"""Trained toys that are kept: the weights of each step of the grid, a card, and what going on needs.

A folder is of one recipe. A run that is interrupted goes on from the last state that was written, to the same bits;
what is read was written whole and is held against its checksum; a folder that is damaged is made anew,
with a word.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from workbench import memo
from workbench.draws import Draws
from workbench.errors import RefusedError
from workbench.files import cache_dir, write_whole
from workbench.loading.files import kept
from workbench.loading.toys.recipe import Recipe, as_record
from workbench.loading.toys.recipes import name_of
from workbench.loading.toys.training import DivergedError, Evaluated, Training, alone_on_a_core, evaluated
from workbench.loading.toys.transformer import ToyTransformer

__all__ = ["Checkpoint", "Kept", "Seen", "trained"]

Progress = Callable[[str, float, str], None]
Seen = Callable[[int, ToyTransformer, Evaluated], None]

_OFTEN = 2.0  # seconds between states that a killed run goes on from
_BYTES = 50_000_000  # about what a run takes
_LIBRARIES = ("torch", "numpy", "safetensors", "transformer-lens")


class Checkpoint(NamedTuple):
    """A kept step, and what was measured of it."""

    step: int
    found: Evaluated


class Kept:
    """What is kept of a recipe's training, and how it is made."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.folder = cache_dir() / "toys" / f"{recipe.task.name}-{recipe.key}"

    @property
    def card(self) -> dict[str, Any]:
        """Task, settings, versions, and for each kept step its loss, measures and checksum; empty before there is
        any."""
        try:
            record = memo.unmarked(json.loads((self.folder / "card.json").read_text(encoding="utf-8")))
            return record if record["key"] == self.recipe.key else {}
        except (OSError, ValueError, LookupError):
            return {}

    def steps(self) -> dict[int, dict[str, Any]]:
        """What the card says of each kept step, in order."""
        return {
            int(step): record for step, record in sorted(self.card.get("steps", {}).items(), key=lambda i: int(i[0]))
        }

    def ensure(self, step: int | None = None, progress: Progress | None = None, seen: Seen | None = None) -> None:
        """Train up to a step of the grid (None: the last) unless it is kept. seen: is shown each kept step on the way.

        RefusedError where the run diverges before: what is finite is kept.
        """
        for checkpoint in self.along(step, progress):
            if seen is not None:
                seen(checkpoint.step, self.module(checkpoint.step), checkpoint.found)

    def along(self, step: int | None = None, progress: Progress | None = None) -> Generator["Checkpoint", None, None]:
        """The kept steps up to one of the grid (None: the last), in order, as they are made or are there already.

        What happens to the training when this is closed, or an error comes out of it: it is kept as far as it came.
        """
        last = self.recipe.steps if step is None else step
        report = progress or (lambda stage, share, text: None)
        grid = [kept for kept in self.recipe.grid if kept <= last]
        if (there := self._there(grid)) is not None:  # in a cache of somebody else's, which we may only read
            yield from there
            return
        with kept.storage_errors(_BYTES, "a toy's checkpoints"), kept.alone(report, self.folder):
            sound = self._sound()
            if not sound and (self.folder / "card.json").exists():
                kept.tell_damage(f"What is kept of {name_of(self.recipe)} is not as it was written", progress)
            records = self.steps() if sound else {}
            first = next((step for step in grid if step not in records), last + 1)
            known = [step for step in grid if step < first]
            for done in known:
                yield Checkpoint(done, Evaluated(records[done]["loss"], records[done]["measures"]))
            if len(known) < len(grid):
                yield from self._train(last, report, set(known), first)

    def _there(self, grid: list[int]) -> list["Checkpoint"] | None:
        """The steps of a grid, where all of them are kept and sound; nothing is written or locked for that."""
        records = self.steps()
        if not all(step in records for step in grid) or not self._sound():
            return None
        return [Checkpoint(step, Evaluated(records[step]["loss"], records[step]["measures"])) for step in grid]

    def module(self, step: int) -> ToyTransformer:
        """The weights of a kept step, in a module of its own."""
        with Draws(0):  # weights that are replaced at once: nobody's generator is asked for them
            module = ToyTransformer(self.recipe.config)
        module.load_state_dict(self._read(f"step-{step:06d}"))
        return module.eval()

    def loss(self, step: int) -> Evaluated:
        """What was measured at a kept step."""
        record = self.steps()[step]
        return Evaluated(record["loss"], record["measures"])

    def _train(self, last: int, report: Progress, known: set[int], first: int) -> Generator["Checkpoint", None, None]:
        """known: steps that have been shown. first: the first that is missing."""
        card = self._begun()
        if last >= card.get("diverged", last + 1):
            raise DivergedError(name_of(self.recipe), card["diverged"])
        with alone_on_a_core():
            run = self._resumed(card, first)
        try:
            yield from self._advance(run, card, last, report, known)
        except DivergedError as error:
            card["diverged"] = error.step
            raise
        finally:
            self._write(run, card)

    def _advance(
        self, run: Training, card: dict[str, Any], last: int, report: Progress, known: set[int]
    ) -> Generator["Checkpoint", None, None]:
        """Update until the last step. Whoever is shown a checkpoint has the threads and the numbers of before."""
        grid, written = set(self.recipe.grid), time.monotonic()
        while True:
            with alone_on_a_core():
                found = self._keep(run, card) if run.step in grid else None
            if found is not None:
                report("train", run.step / last if last else 1.0, self._line(run, found.loss, last))
                if run.step not in known:
                    yield Checkpoint(run.step, found)
            if run.step >= last:
                return
            with alone_on_a_core():
                run.advance()
                while run.step not in grid and run.step < last:
                    run.advance()
            if time.monotonic() - written > _OFTEN:
                self._write(run, card)
                written = time.monotonic()

    def _line(self, run: Training, loss: float, last: int) -> str:
        return f"training {name_of(self.recipe)}: step {run.step} of {last}, loss {loss:.3f}"

    def _begun(self) -> dict[str, Any]:
        """The card of what is there, or a fresh one in an empty folder."""
        card = self.card
        if card and self._sound():
            return card
        for file in [*self.folder.glob("*.safetensors"), *self.folder.glob("*.json")]:
            file.unlink()
        made_with = {library: version(library) for library in _LIBRARIES}
        about = {"key": self.recipe.key, "recipe": as_record(self.recipe), "source": self.recipe.task.source}
        return {**about, "made_with": made_with, "steps": {}}

    def _resumed(self, card: dict[str, Any], first: int) -> Training:
        """From the state that is kept; from the start where that lies behind the first step that is missing, as where
        the same run was kept at other steps: a run of 60 beside one of 1000."""
        run, state = Training(self.recipe), card.get("state", {"step": 0})["step"]
        if "state" not in card:
            card["steps"] = {}
            return run
        card["steps"] = {step: record for step, record in card["steps"].items() if int(step) <= state}
        if state <= first:
            run.restore(self._read("state"), state)
        return run

    def _keep(self, run: Training, card: dict[str, Any]) -> Evaluated:
        """Measure and write the weights of a step; DivergedError where its loss is no number."""
        if (record := card["steps"].get(str(run.step))) is not None:
            return Evaluated(record["loss"], record["measures"])
        run.module.eval()
        found = evaluated(run.model, self.recipe)
        run.module.train()
        if not math.isfinite(found.loss):
            raise DivergedError(name_of(self.recipe), run.step)
        sha256 = self._put(f"step-{run.step:06d}", run.module.state_dict())
        card["steps"][str(run.step)] = {"loss": found.loss, "measures": found.measures, "sha256": sha256}
        return found

    def _write(self, run: Training, card: dict[str, Any]) -> None:
        if run.step >= card.get("state", {"step": 0})["step"]:  # else it came from a run that went further
            card["state"] = {"step": run.step, "sha256": self._put("state", run.tensors())}
        write_whole(self.folder / "card.json", json.dumps(memo.marked(card), indent=1).encode())

    def _put(self, name: str, tensors: dict[str, torch.Tensor]) -> str:
        content = save({n: value.detach().contiguous() for n, value in tensors.items()})
        write_whole(self.folder / f"{name}.safetensors", content)
        return hashlib.sha256(content).hexdigest()

    def _read(self, name: str) -> dict[str, torch.Tensor]:
        try:
            return load((self.folder / f"{name}.safetensors").read_bytes())
        except (OSError, SafetensorError) as error:
            raise RefusedError(
                f"{self.folder / name}.safetensors, which cannot be read", "the weights that training wrote",
                "Delete the folder: it is trained anew",
            ) from error  # fmt: skip

    def _sound(self) -> bool:
        """Whether every file that the card names is what was written."""
        card = self.card
        if "state" not in card:
            return False
        named = {f"step-{int(step):06d}": record for step, record in card["steps"].items()} | {"state": card["state"]}
        for name, record in named.items():
            file = self.folder / f"{name}.safetensors"
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != record["sha256"]:
                return False
        return True


def trained() -> Iterator[tuple[str, Path]]:
    """Names and folders of what is kept."""
    for file in sorted((cache_dir() / "toys").glob("*/card.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))["recipe"]
            yield f"toy:{record['task']}, seed {record['seed']}", file.parent
        except (OSError, ValueError, LookupError, TypeError):
            continue
