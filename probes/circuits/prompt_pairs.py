"""Pairs of prompts for patching: equal length, which tokens differ, and what is measured of their two runs."""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from workbench.analysis.parameters import Lines, OfPrompt
from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.models.target import Target
from workbench.models.typed import typed
from workbench.observation.metrics import TARGET, Metric, followed_by, going_on, in_steps, make_metric
from workbench.observation.sweeps import Base, base_run
from workbench.words import counted

__all__ = [
    "Against",
    "Corrupt",
    "PairRuns",
    "PromptPair",
    "TargetText",
    "need_pair",
    "pair_runs",
    "prompt_pair",
    "segment",
    "top_tokens_metric",
    "unused",
]

_POSITIONS = re.compile(r" *-?[0-9]{1,9} *(, *-?[0-9]{1,9} *)*")

# Parameters of every study of a pair.
Corrupt = Annotated[str, OfPrompt(), Lines(), "prompt of equal length to compare with; empty: the same tokens, moved"]
TargetText = Annotated[str, f"{TARGET}; empty: the clean run's top token"]
Against = Annotated[str, "what it is compared with; empty with an empty target: the corrupt run's top token"]


@dataclass(frozen=True)
class PromptPair:
    """A clean and a corrupt prompt of equal length; differing: positions where their tokens differ. made_up: nobody
    gave the corrupt one: it is the clean one with its tokens moved."""

    clean: Tokens
    corrupt: Tokens
    differing: tuple[int, ...]
    made_up: bool = False

    def noted(self, said: str) -> str:
        """A sentence about the pair, with what is to be known of it."""
        return f"{said} The corrupt prompt is this one with its tokens moved: none was given." if self.made_up else said

    def describe(self) -> str:
        """The differing tokens, such as `4 ' France' / ' Italy'`."""
        return "; ".join(f"{p} {self.clean.strings[p]!r} / {self.corrupt.strings[p]!r}" for p in self.differing)


def prompt_pair(model: Model, clean: Any, corrupt: Any = "") -> PromptPair:
    """Tokenise and check a pair. An empty corrupt prompt is the clean one with its inner tokens moved half way round.

    Raises InputError for unequal lengths, showing both token by token, and for prompts that do not differ.
    """
    first = tokenise(model, clean)
    second = typed(model, corrupt) if corrupt not in ("", None) else _rotated(model, first)
    if len(first) != len(second):
        raise InputError(
            f"a clean prompt of {counted(len(first), 'token')} ({_shown(first)}) "
            f"and a corrupt one of {len(second)} ({_shown(second)})",
            "equal lengths",
            "Swap words for others of as many tokens",
        )
    differing = tuple(p for p, (a, b) in enumerate(zip(first.ids, second.ids, strict=True)) if a != b)
    if not differing:
        raise InputError("a corrupt prompt equal to the clean one", "at least one token that differs", "Change a word")
    return PromptPair(first, second, differing, made_up=corrupt in ("", None))


def _shown(tokens: Tokens) -> str:
    return "|".join(tokens.strings[:24]) + ("|..." if len(tokens) > 24 else "")


def _rotated(model: Model, tokens: Tokens) -> Tokens:
    inner = tokens.ids[1:-1]
    half = len(inner) // 2
    moved = (*inner[half:], *inner[:half])
    if moved == inner:
        why = "has no two different tokens between its first and last" if len(set(inner)) < 2 else "repeats itself"
        raise InputError("no corrupt prompt", f"one, since this prompt {why}: moving them changes nothing", "Give one")
    return tokenise(model, Prompt.ids((tokens.ids[0], *moved, tokens.ids[-1])))


def need_pair(model: Model, clean: Tokens, corrupt: Any, metric: str, target: str, against: str) -> None:
    """InputError where `pair_runs` would raise one before any run."""
    prompt_pair(model, clean, corrupt)
    going_on(model, metric, target, against)


def segment(tokens: Tokens, text: str) -> tuple[int, ...]:
    """Positions of the tokens that a piece of the prompt's text touches; its last occurrence as whole words.

    Positions may be given instead, as `3,4`; numbers that are none of the prompt (`1984`) are a text. Raises InputError
    where the text is not in the prompt.
    """
    numbers = [int(part) for part in text.split(",")] if _POSITIONS.fullmatch(text) else []
    if numbers and all(-len(tokens) <= number < len(tokens) for number in numbers):
        return tuple(sorted({tokens.place(number) for number in numbers}))
    found = tokens.touching(text)
    if not found:
        raise InputError(
            f"the text {text!r}",
            f"a part of the prompt {tokens.text!r}, or positions from 0 to {len(tokens) - 1} such as 3,4",
            "Correct it",
        )
    return found


@dataclass(frozen=True, eq=False)
class PairRuns:
    """A pair of prompts, its two runs, and what is measured of them."""

    pair: PromptPair
    metric: Metric
    clean: Base = field(repr=False)
    corrupt: Base = field(repr=False)


def pair_runs(model: Model, clean: Any, corrupt: Any, metric: str, target: str, against: str) -> PairRuns:
    """Run both prompts of a pair, followed by a target of several tokens. metric, target, against: texts, as a study of
    a pair is asked."""
    pair, more = prompt_pair(model, clean, corrupt), going_on(model, metric, target, against)
    both = [followed_by(model, tokens, more) for tokens in (pair.clean, pair.corrupt)]
    pair = replace(pair, clean=both[0], corrupt=both[1])
    runs = base_run(model, pair.clean), base_run(model, pair.corrupt)
    if metric == "logit difference" and not target and not against:
        chosen = top_tokens_metric(model, *runs)
    else:
        logits = runs[0].logits(model, -1 - len(more))
        chosen = make_metric(model, pair.clean, logits, kind=metric, target=target, against=against)
    return PairRuns(pair, chosen, *runs)


def top_tokens_metric(model: Model, clean: Base, corrupt: Base) -> Metric:
    """Logit of the clean run's top token minus that of the corrupt run's."""
    target, against = int(clean.logits(model).argmax()), int(corrupt.logits(model).argmax())
    other = None if target == against else Target.one(against)
    coarse = in_steps(model, clean.logits(model))
    return Metric("logit difference", Target.one(target), other, ids=clean.tokens.ids, coarse=coarse)


def unused(task: str, *given: str) -> str:
    """What to say of texts that were given beside a task that brings its own: they would be taken for what was
    measured. "" where there are none."""
    aside = [repr(text) for text in given if text]
    verb = "was" if len(aside) == 1 else "were"
    return f"{' and '.join(aside)} {verb} not used: the task {task!r} has its own." if aside else ""
