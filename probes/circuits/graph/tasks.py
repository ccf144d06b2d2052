"""Tasks: pairs of prompts with their answers, apart for ranking, choosing and testing.

Pairs are drawn from `task_texts`, or read from a file. Those whose answers are no single tokens of the model's
vocabulary, or whose two prompts differ in length, are dropped and counted. Mirrored pairs (one's counterfactual is the
other's clean prompt) share a group. No group and no prompt, clean or counterfactual, is on two sides of a split.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.circuits.graph.task_texts import TASKS, PairText
from probes.stimuli import need_english
from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Tokens, tokenise
from workbench.models.target import Target, likelier, target_of, unread
from workbench.observation import observe
from workbench.observation.metrics import Metric, followed_by, in_steps
from workbench.records import read_pairs
from workbench.words import counted

__all__ = ["SPLITS", "Pair", "PairSet", "Task", "batches", "pair_of", "read_task", "split_pairs", "task"]

SPLITS = ("train", "validation", "test")
_DRAWN = 60  # candidates for every pair that is asked
_LOOKED_AT = 8  # pairs of a file of which the form of the answers is looked at


@dataclass(frozen=True)
class Pair:
    """Two prompts of equal length and what is measured of them: the logit difference of answers and wrong answers at
    the last position (of sets, of the logarithms of their summed exponentials)."""

    clean: Tokens
    corrupt: Tokens
    answers: Target
    wrong: Target
    group: str = ""

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return Metric("logit difference", self.answers, self.wrong, ids=self.clean.ids)


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of one length, as a batch."""

    pairs: tuple[Pair, ...]
    places: tuple[int, ...]
    clean: torch.Tensor = field(repr=False)
    corrupt: torch.Tensor = field(repr=False)

    def values(self, logits: torch.Tensor) -> torch.Tensor:
        """The metric of each pair `[row]` of logits at the last position `[row, d_vocab]`; keeps gradients."""
        rows = [pair.metric.of_logits(one[None, None]) for pair, one in zip(self.pairs, logits, strict=True)]
        return torch.cat(rows)


@dataclass(frozen=True, eq=False)
class Task:
    """Pairs by split. dropped: how many candidates were left out, by reason. note: what to say of the answers beside
    whatever is found, or ""."""

    name: str
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    dropped: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def noted(self, sentence: str) -> str:
        """A sentence with what is to be said of the answers."""
        return f"{sentence} {self.note}" if self.note else sentence

    def describe(self) -> str:
        """In words."""
        said = f"{self.name}: {len(self.train)} / {len(self.validation)} / {len(self.test)} pairs"
        left = "; ".join(f"{n} left out ({reason})" for reason, n in sorted(self.dropped.items()))
        return f"{said}; {left}" if left else said


def task(model: Model, name: str, *, train: int = 20, validation: int = 0, test: int = 40, seed: int = 0) -> Task:
    """Pairs of a task by its name (`TASKS`), as many as asked for each split.

    InputError for an unknown task, and where the model's vocabulary leaves too few pairs.
    """
    if name not in TASKS:
        raise InputError(f"the task {name!r}", f"one of {', '.join(TASKS)}", "Choose one of these")
    need_english(model)
    n = train + validation + test
    texts = islice(TASKS[name](np.random.default_rng(seed)), _DRAWN * n)
    return split_pairs(model, name, texts, (train, validation, test))


def read_task(
    model: Model, path: str | Path, *, train: int = 20, validation: int = 0, test: int = 40, seed: int = 0
) -> Task:
    """Pairs of a file with the columns clean, corrupt, answer and wrong, in an order that `seed` draws: people sort
    their tables, and the first rows would be of one kind; see `task`.

    Sets of answers are JSON lists, as everywhere.
    """
    given = read_pairs(path)
    for number, pair in enumerate(given, start=1):
        cells = {"clean": pair.clean, "corrupt": pair.corrupt, "answer": pair.answer, "wrong": pair.wrong}
        if lacking := [name for name, text in cells.items() if not text]:
            raise InputError(
                f"pair {number} of {path} without {' and '.join(lacking)} ({pair.clean!r})", "all four in each pair",
                "Fill them in, leave the pair out, or give the columns these names",
            )  # fmt: skip
    order = np.random.default_rng(seed).permutation(len(given))
    texts = [
        PairText(pair.clean, pair.corrupt, (pair.answer,), (pair.wrong,), "") for pair in (given[i] for i in order)
    ]
    try:
        found = split_pairs(model, Path(path).stem, texts, (train, validation, test))
    except InputError as error:
        if said := _without_space(model, texts):
            raise InputError(error.got, error.expected, said) from error
        raise
    notes = (_of_starts([*found.train, *found.validation, *found.test]), _of_forms(model, texts), found.note)
    return replace(found, note=" ".join(filter(None, notes)))


def _without_space(model: Model, texts: Sequence[PairText]) -> str:
    """What to do where answers would be single tokens behind a space, which nobody types into a cell; "" elsewhere."""
    for answer in dict.fromkeys(answer for text in texts for answer in (*text.answers, *text.wrong)):
        with suppress(InputError):
            typed, spaced = (target_of(model.vocabulary, text).length for text in (answer, f" {answer}"))
            if answer[:1].isalnum() and typed > 1 and spaced == 1:
                said = f"{f' {answer}'!r} is one token, {answer!r} is not"
                return f"Write answers with the space that they follow on ({said})"
    return ""


def _of_starts(pairs: Sequence[Pair]) -> str:
    """What to say where answers of several tokens begin alike, as 24 and 25 do in digits: what they share joins the
    prompts, and the model is asked for the rest alone. "" where that is nothing but a space."""
    ends = lambda tokens: zip(tokens.strings, tokens.spans.ends, strict=True)
    joined = ["".join(s for s, (start, _) in ends(pair.clean) if start == len(pair.clean.text)) for pair in pairs]
    told = [start for start in joined if start.strip()]
    how = f"asked behind what their answers begin with alike, such as {told[0]!r}" if told else ""
    return f"{len(told)} of {counted(len(pairs), 'pair')} {'is' if len(told) == 1 else 'are'} {how}." if told else ""


def _of_forms(model: Model, texts: Sequence[PairText]) -> str:
    """What to say where answers of a file would be likelier with or without a space in front, on the prompts that they
    belong to: "Mary" in a cell is another token than " Mary" in a sentence. "" where there is nothing to say."""
    some = [text for text in texts[: _LOOKED_AT * 4] if pair_of(model, text, Counter()) is not None][:_LOOKED_AT]
    asked = [(prompt, answer) for text in some for prompt, answer in ((text.clean, text.answers[0]),
                                                                      (text.corrupt, text.wrong[0]))]  # fmt: skip
    logits = observe(model, [tokenise(model, prompt) for prompt, _ in asked]).logits
    notes = [likelier(model.vocabulary, answer, rows[-1].float().log_softmax(-1))
             for (_, answer), rows in zip(asked, logits, strict=True)]  # fmt: skip
    said = [note for note in notes if note]
    return (
        f"Of {len(notes)} answers looked at, {len(said)} would be likelier in another form: {said[0]}" if said else ""
    )


def split_pairs(model: Model, name: str, texts: Iterable[PairText], sizes: Sequence[int]) -> Task:
    """As many pairs of each split (train, validation, test) as `sizes` says, as they come, each group into the split
    that it was dealt to; InputError where there are too few."""
    dropped: Counter[str] = Counter()
    found: list[list[Pair]] = [[] for _ in sizes]
    dealt: dict[str | tuple[int, ...], int] = {}  # groups and prompts
    seen: set[tuple[int, ...]] = set()
    for text in texts:
        wanted = [size - len(pairs) for size, pairs in zip(sizes, found, strict=True)]
        if not any(w > 0 for w in wanted):
            break
        pair = pair_of(model, text, dropped)
        if pair is None:
            continue
        if pair.clean.ids in seen:
            dropped["clean prompts that came before"] += 1
            continue
        keys = (pair.group, pair.clean.ids, pair.corrupt.ids)
        before = {dealt[key] for key in keys if key in dealt}
        if len(before) > 1:
            dropped["prompts that two splits would share"] += 1
            continue
        split = before.pop() if before else int(np.argmax(np.array(wanted) / np.maximum(sizes, 1)))
        if wanted[split] > 0:
            seen.add(pair.clean.ids)
            dealt |= dict.fromkeys(keys, split)
            found[split].append(pair)
    if any(len(pairs) < size for pairs, size in zip(found, sizes, strict=True)):
        got = f"{' / '.join(str(len(pairs)) for pairs in found)} pairs of {name!r}"
        why = "; ".join(f"{n} left out ({reason})" for reason, n in dropped.items())
        raise InputError(
            f"{got}{f' ({why})' if why else ''}", " / ".join(map(str, sizes)), "Ask for fewer, or for another task"
        )
    train, validation, test = map(tuple, found)
    return Task(name, train, validation, test, dict(dropped), _in_steps(model, (*train, *validation, *test)))


def _in_steps(model: Model, pairs: Sequence[Pair]) -> str:
    """What is to be said of the digits of logits on pairs; a pass that a model with enough of them is spared."""
    if model.readout.W_U.dtype == torch.float32 or not pairs:
        return ""
    seen = observe(model, [pair.clean for pair in pairs[:_LOOKED_AT]])
    return in_steps(model, torch.stack([rows[-1] for rows in seen.logits]))


def pair_of(model: Model, text: PairText, dropped: Counter[str]) -> Pair | None:
    """A pair for a model; None where it cannot be one, with the reason counted in `dropped`."""
    clean, corrupt = tokenise(model, text.clean), tokenise(model, text.corrupt)
    if len(clean) != len(corrupt):
        dropped["prompts of unequal length"] += 1
        return None
    if clean.ids == corrupt.ids:
        dropped["prompts that do not differ"] += 1
        return None
    if any(unread(model.vocabulary, answer) for answer in (*text.answers, *text.wrong)):
        dropped["answers that the tokenizer has no tokens for"] += 1
        return None
    both = [[member for text in texts for member in target_of(model.vocabulary, text).members]
            for texts in (text.answers, text.wrong)]  # fmt: skip
    more = _start([member for members in both for member in members])
    answers, wrong = ({member[len(more) :] for member in members} for members in both)
    if any(len(member) != 1 for member in answers | wrong):
        dropped["answers that are not single tokens"] += 1
        return None
    if answers & wrong:
        dropped["an answer that is the wrong one, too"] += 1
        return None
    clean, corrupt = (followed_by(model, tokens, more) for tokens in (clean, corrupt))
    group = text.group or min(clean.text, corrupt.text)
    return Pair(clean, corrupt, Target(tuple(sorted(answers))), Target(tuple(sorted(wrong))), group)


def _start(members: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all answers begin with, such as a space that is a token of its own: it joins the prompt."""
    shortest = min(len(member) for member in members) - 1
    shared = 0
    while shared < shortest and len({member[shared] for member in members}) == 1:
        shared += 1
    return members[0][:shared]


def batches(pairs: Sequence[Pair], rows: int) -> Iterator[PairSet]:
    """Pairs of equal length together, at most `rows` at once. places: where they stand among `pairs`."""
    lengths: dict[int, list[int]] = {}
    for place, pair in enumerate(pairs):
        lengths.setdefault(len(pair.clean), []).append(place)
    for places in lengths.values():
        for start in range(0, len(places), rows):
            some = tuple(places[start : start + rows])
            chosen = tuple(pairs[place] for place in some)
            both: list[Any] = [
                torch.tensor([list(getattr(p, side).ids) for p in chosen]) for side in ("clean", "corrupt")
            ]
            yield PairSet(chosen, some, *both)
