"""A recipe: all that decides a toy's weights. Equal recipes give equal numbers."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.loading.toys.clamps import Clamped, read_clamp
from workbench.loading.toys.tasks.task import Task
from workbench.loading.toys.transformer import ToyConfig

__all__ = ["OPTIMISERS", "Recipe"]

OPTIMISERS = ("adamw", "sgd")
_OF_TASK = ("d_vocab", "n_ctx", "n_items")  # sizes that the task says
_WHOLE = {"batch": (1, 100_000), "steps": (1, 1_000_000), "every": (0, 1_000_000), "seed": (0, 2**32 - 1)}
_MOST_WEIGHTS = 50_000_000


@dataclass(frozen=True)
class Recipe:
    """Task, model, optimiser, and seed.

    config: sizes of the vocabulary and the context are the task's. steps: of the whole training. every: a checkpoint is
    kept each so many steps, beside ten in each decade. clamp: clamps with " + " between them, held all through training
    (see `clamps`). horizon: of the tokens ahead that are predicted, 1 for the next alone. init: standard deviation of
    the blocks' matrices at the start, times the root of what they sum over; 3^-0.5 is PyTorch's own.
    """

    task: Task
    config: ToyConfig
    optimiser: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch: int = 32
    steps: int = 1000
    every: int = 0
    seed: int = 0
    clamp: str = ""
    horizon: int = 1
    init: float = 3**-0.5

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise InputError(f"optimiser={self.optimiser!r}", f"one of {', '.join(OPTIMISERS)}", "Choose one of these")
        self._check_numbers()
        task = self.task
        config = replace(self.config, d_vocab=task.d_vocab, n_ctx=task.n_ctx, n_items=task.n_items)
        object.__setattr__(self, "config", config)
        if self.horizon < 1 or (self.horizon > 1 and (task.last_only or self.horizon >= task.n_ctx)):
            raise InputError(
                f"horizon={self.horizon} of toy:{task.name}",
                "1, or more for a task with a target at each position and longer sequences",
                "Leave it out",
            )
        if (weights := _weights(config)) > _MOST_WEIGHTS:
            raise InputError(
                f"toy:{task.name} of about {weights:.2g} weights", f"a toy, of at most {_MOST_WEIGHTS:.2g}",
                "Make it smaller",
            )  # fmt: skip
        self.clamps()

    def _check_numbers(self) -> None:
        for name, (low, high) in _WHOLE.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise InputError(f"{name}={value}", f"from {low} to {high}", "Correct it")
        sound = {
            "lr": (self.lr > 0, "a number above 0"),
            "init": (self.init > 0, "a number above 0"),
            "weight_decay": (self.weight_decay >= 0, "a number from 0"),
            "momentum": (0 <= self.momentum < 1, "a number from 0, below 1"),
        }
        for name, (is_sound, expected) in sound.items():
            if not (is_sound and math.isfinite(getattr(self, name))):
                raise InputError(f"{name}={getattr(self, name)}", expected, "Correct it")

    def clamps(self) -> tuple[Clamped, ...]:
        """The clamps that its text stands for; InputError where one names no unit."""
        texts = [" ".join(text.split()) for text in self.clamp.split("+") if text.strip()]
        return tuple(read_clamp(text, self.task, self.config.n_layers, self.config.n_heads) for text in texts)

    def with_settings(self, given: Mapping[str, Any]) -> "Recipe":
        """The recipe with some settings changed, by their names; texts are read. InputError for what is none.

        With another number of heads, and no `d_head`, d_head is what fits into d_model.
        """
        mine, task, config = (_settings(part) for part in (self, self.task, self.config))
        known = {name: part for part in (config, task, mine) for name in part}
        for name in given:
            if name not in known:
                raise InputError(
                    f"the setting {name!r} of toy:{self.task.name}", f"one of {', '.join(sorted(known))}", "Correct it"
                )
        read = {name: _read(name, known[name][name], value) for name, value in given.items()}
        if ("n_heads" in read or "d_model" in read) and "d_head" not in read:
            heads, width = read.get("n_heads", config["n_heads"]), read.get("d_model", config["d_model"])
            read["d_head"] = max(1, width // max(1, heads))
            if width > 0 and read["d_head"] % 2 and read.get("positions", config["positions"]) == "rotary":
                raise InputError(
                    f"n_heads={heads} of d_model={width}, whose d_head would be {read['d_head']}",
                    "an even d_head: positions are rotations",
                    "Say d_head, or another number of heads",
                )
        of = lambda part: {name: value for name, value in read.items() if name in part}
        return replace(self, task=replace(self.task, **of(task)), config=replace(self.config, **of(config)), **of(mine))

    def settings(self) -> dict[str, Any]:
        """All settings by their names."""
        return {**_settings(self.config), **_settings(self.task), **_settings(self)}

    def about(self) -> str:
        """Its settings in a line."""
        return ", ".join(f"{name}={value}" for name, value in self.settings().items())

    @property
    def grid(self) -> tuple[int, ...]:
        """The steps whose weights are kept: 0, ten a decade, each `every`, the last."""
        found = {0, self.steps}
        decades = 10 * math.log10(self.steps)
        found |= {round(10 ** (i / 10)) for i in range(math.ceil(decades))}
        if self.every:
            found |= set(range(0, self.steps, self.every))
        return tuple(sorted(step for step in found if step <= self.steps))

    @property
    def key(self) -> str:
        """16 hex digits of all that decides its weights: the settings but those of when to look, and the code."""
        decides = {n: v for n, v in self.settings().items() if n not in ("steps", "every")}
        return hashlib.sha256(json.dumps([self.task.name, decides, _code()], sort_keys=True).encode()).hexdigest()[:16]


def _weights(config: ToyConfig) -> int:
    """About how many weights there are."""
    block = 4 * config.n_heads * config.d_head + 2 * config.d_mlp
    return config.d_model * (2 * config.d_vocab + config.n_layers * block)


def _settings(part: Any) -> dict[str, Any]:
    """The fields of a part that can be set."""
    names = [f.name for f in fields(part) if f.name not in (*_OF_TASK, "task", "config")]
    return {name: getattr(part, name) for name in names}


def _read(name: str, now: Any, given: Any) -> Any:
    """A value of the kind that a setting has now."""
    if isinstance(now, bool):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(given).lower() not in words:
            raise InputError(f"{name}={given!r}", "true or false", "Correct it")
        return words[str(given).lower()]
    try:
        return type(now)(given)
    except (TypeError, ValueError) as error:
        kind = {int: "a whole number", float: "a number"}.get(type(now), "a text")
        raise InputError(f"{name}={given!r}", kind, "Correct it") from error


@cache
def _code() -> str:
    """A hash of the files that training runs on: whoever changes them gets other weights."""
    home = Path(__file__).parent
    files = sorted([*home.glob("tasks/*.py"), *(home / f"{n}.py" for n in ("transformer", "training", "clamps"))])
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def as_record(recipe: Recipe) -> dict[str, Any]:
    """For the card."""
    return {"task": recipe.task.name, **recipe.settings(), "config": asdict(recipe.config)}
