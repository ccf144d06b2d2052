"""Pairs like a shown one: its words swapped for others of their kind, in both prompts and in the answers.

Swapped are the tokens in which the two prompts differ, and answers that stand in the prompts. Answers that are no words
of the prompts stay as they are where the model keeps preferring them after a swap (tried on six swaps, which are then
used no more); else, if both shown answers are the model's own likeliest tokens, each pair has its own likeliest tokens
as answers, of the shown ones' kind and of a probability that random weights do not reach, as long as there are as many
such pairs as asked, or half as many.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from probes.circuits.graph.task_texts import PairText
from probes.circuits.graph.tasks import Pair, Task, split_pairs
from probes.explain.contrasts import Contrast, ends, with_ids
from probes.explain.same_kind import is_word, same_kind, shape
from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Prompt
from workbench.models.target import Target

__all__ = ["COPIED", "FIXED", "OWN", "Made", "made_pairs"]

COPIED = "answers are swapped with the words of the prompts"
FIXED = "answers stay those of the shown pair"
OWN = "answers are the model's own likeliest tokens on the two prompts, each of probability 0.1 or more"
_SAID = 0.1  # probability of what a model says: that it prefers its likeliest token is so by construction
_TRIED = 6  # swaps on which it is seen whether answers may stay
_KEPT = 5  # of these, on which the model must still prefer them
_SPARE = 3  # candidates for each pair
_ENOUGH = 12  # words for each token, at least
_FEWEST = (3, 3, 5)  # pairs of each split that can tell anything: the survey takes two splits
_BESIDE = 8  # for each other word of the prompt


@dataclass(frozen=True, eq=False)
class Made:
    """Pairs made from a contrast. answers: one of `COPIED`, `FIXED`, `OWN`."""

    task: Task
    answers: str


def made_pairs(model: Model, contrast: Contrast, sizes: Sequence[int], seed: int = 0) -> Made:
    """Pairs of each split (train, validation, test), as many as `sizes` says, none of them the shown one.

    InputError where there are too few words of the kind.
    """
    n = sum(sizes)
    swaps = _swaps(model, contrast.pair, _SPARE * n + _TRIED, seed)
    how = _answers(model, contrast, swaps[:_TRIED])
    for some in (sizes, [max(few, size // 2) for few, size in zip(_FEWEST, sizes, strict=True)]) if how == OWN else ():
        try:
            return _made(model, contrast.pair, swaps, OWN, some)
        except InputError:  # too few have answers of their own: half as many, or the shown answers, which are measured
            continue
    if how == COPIED:
        return _made(model, contrast.pair, swaps, COPIED, sizes)
    return _made(model, contrast.pair, swaps[_TRIED:], FIXED, sizes)


def _made(model: Model, pair: Pair, swaps: Sequence[Mapping[int, int]], how: str, sizes: Sequence[int]) -> Made:
    try:
        return Made(split_pairs(model, "the prompt", _texts(model, pair, swaps, how), sizes), how)
    except InputError as error:
        raise InputError(
            f"{error.got}, made by swapping words of the same kind",
            error.expected,
            "Ask for fewer pairs, or give your own as a task",
        ) from error


def _swaps(model: Model, pair: Pair, n: int, seed: int) -> list[dict[int, int]]:
    """Up to n different ways to put other tokens in the place of those that move; when these are used up, other words
    of the prompt are swapped as well, one at a time."""
    moving, used = _moving(pair), sorted(set(pair.clean.ids) | set(pair.corrupt.ids))
    random = np.random.default_rng(seed)
    words = {token: same_kind(model, token, max(_ENOUGH, n // 2), used) for token in moving}
    words = {token: [found[i] for i in random.permutation(len(found))] for token, found in words.items() if found}
    shifted = list(_together(words, 4 * n))
    others = [one for one in dict.fromkeys(pair.clean.ids[:-1])
              if one not in moving and is_word(model.vocabulary.string(one))]  # fmt: skip
    beside = [{one: other} for one in others for other in same_kind(model, one, _BESIDE, used)]
    found: list[dict[int, int]] = []
    seen: tuple[set[Any], set[Any]] = set(), set()

    def take(swap: dict[int, int]) -> None:
        """Where both prompts are new."""
        both = [tuple(swap.get(i, i) for i in tokens.ids) for tokens in (pair.clean, pair.corrupt)]
        if all(one not in known for one, known in zip(both, seen, strict=True)):
            found.append(swap)
            for one, known in zip(both, seen, strict=True):
                known.add(one)

    for swap in shifted:
        take(swap)
    for swap in [beside[i] for i in random.permutation(len(beside))]:
        if len(found) >= n:
            break
        for one in shifted or [{}]:
            if len(set((swap | one).values())) == len(swap | one):
                take(swap | one)
    return found[:n]


def _together(words: Mapping[int, Sequence[int]], n: int) -> Iterator[dict[int, int]]:
    """Ways to swap all tokens at once: first each word once, then the same words in other company."""
    longest, made = max(map(len, words.values()), default=0), set()
    for shift in range(longest if len(words) > 1 else 1):
        for turn in range(longest):
            swap = {token: some[(turn + place * shift) % len(some)]
                    for place, (token, some) in enumerate(words.items())}  # fmt: skip
            key = tuple(swap.values())
            if len(set(key)) == len(key) and key not in made:
                made.add(key)
                yield swap
            if len(made) == n:
                return


def _moving(pair: Pair) -> list[int]:
    """Tokens in which the prompts differ, and answers that stand in a prompt."""
    apart = [(a, b) for a, b in zip(pair.clean.ids, pair.corrupt.ids, strict=True) if a != b]
    prompts = set(pair.clean.ids) | set(pair.corrupt.ids)
    answers = [one for target in (pair.answers, pair.wrong) for (one,) in target.members if one in prompts]
    return list(dict.fromkeys([*(a for a, _ in apart), *(b for _, b in apart), *answers]))


def _swapped(model: Model, pair: Pair, swap: Mapping[int, int]) -> tuple[Any, Any]:
    return tuple(  # type: ignore[return-value]  # of two
        with_ids(model, [swap.get(i, i) for i in tokens.ids]) for tokens in (pair.clean, pair.corrupt)
    )


def _answers(model: Model, contrast: Contrast, tried: Sequence[Mapping[int, int]]) -> str:
    """How pairs get their answers; see above."""
    pair = contrast.pair
    moving = set(_moving(pair))
    if all(member[0] in moving for target in (pair.answers, pair.wrong) for member in target.members):
        return COPIED
    if not contrast.own_answers or not tried:
        return FIXED
    kept = 0
    for swap in tried:
        clean, corrupt = ends(model, list(_swapped(model, pair, swap)))
        values = [float(pair.metric.of_logits(row[None, None])[0]) for row in (clean, corrupt)]
        kept += values[0] > 0 > values[1]
    return FIXED if kept >= _KEPT else OWN


def _texts(model: Model, pair: Pair, swaps: Sequence[Mapping[int, int]], how: str) -> Iterator[PairText]:
    written = lambda target, swap: Target(tuple((swap.get(i, i),) for (i,) in target.members)).written
    shapes = [shape(model.vocabulary.string(target.members[0][0])) for target in (pair.answers, pair.wrong)]
    rest = iter(swaps)
    while some := list(islice(rest, 16)):  # a few at a time, so that no more are run than are asked for
        both = [_swapped(model, pair, swap) for swap in some]
        tops: list[torch.Tensor] = ends(model, [one for pair in both for one in pair]) if how == OWN else []
        for place, (swap, (clean, corrupt)) in enumerate(zip(some, both, strict=True)):
            answers, wrong = written(pair.answers, swap), written(pair.wrong, swap)
            if how == OWN:
                ids = [int(row.argmax()) for row in tops[2 * place : 2 * place + 2]]
                said = min(float(row.float().softmax(-1).max()) for row in tops[2 * place : 2 * place + 2])
                if said < _SAID or [shape(model.vocabulary.string(i)) for i in ids] != shapes:
                    continue
                answers, wrong = (Target.one(i).written for i in ids)
            group = " ".join(map(str, sorted(swap.values())))
            first, second = (Prompt.ids(list(one.ids)) for one in (clean, corrupt))
            yield PairText(first, second, (answers,), (wrong,), group)
