"""Pairs like a shown one: its words swapped for others of their kind, in both prompts and in the answers.

What may be swapped is said in `swaps`. Answers that are words of the prompts are swapped with them, others stay as they
are. Six swaps tell whether the model keeps preferring answers that are made so (where these are its own, the six are
then used no more). Where it does not (an answer that is worked out: the next day, a sum, an opposite) and both shown
answers are its own likeliest tokens, each pair has its own likeliest tokens as answers, of the shown ones' kind and of
a probability that random weights do not reach. Where there are not as many such pairs as asked, or the shown answers
are not its own, fewer are taken, or more that keep the shown swap with its answers and have other words beside it, if
the model keeps preferring these; where there are too few, the shown answers stand.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, tee

import torch

from probes.circuits.graph.task_texts import PairText
from probes.circuits.graph.tasks import Pair, Task, pair_of, split_pairs
from probes.explain.contrasts import SAID, Contrast, ends, with_ids
from probes.explain.same_kind import shape
from probes.explain.swaps import Lost, Swap, moving, swaps
from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Prompt
from workbench.models.target import Target

__all__ = ["BESIDE", "COPIED", "FIXED", "OWN", "Made", "made_pairs"]

COPIED = "answers are swapped with the words of the prompts"
FIXED = "answers that stand in the prompts are swapped with them, others stay those of the shown pair"
BESIDE = "the swap and its answers stay those of the shown pair, other words are swapped"
OWN = "answers are the model's own likeliest tokens on the two prompts, each of probability 0.1 or more"
_TRIED = 6  # swaps on which it is seen whether such answers are preferred
_KEPT = 5  # of these, on which the model must still prefer them
_SPARE = 3  # candidates for each pair
_FEWEST = (3, 3, 5)  # pairs of each split that can tell anything: the survey takes two splits


@dataclass(frozen=True, eq=False)
class Made:
    """Pairs made from a contrast. answers: one of `COPIED`, `FIXED`, `OWN`, `BESIDE`."""

    task: Task
    answers: str

    def is_short_of(self, sizes: Sequence[int]) -> bool:
        """Whether there are fewer than were asked."""
        made = (self.task.train, self.task.validation, self.task.test)
        return any(len(pairs) < size for pairs, size in zip(made, sizes, strict=True))


def made_pairs(model: Model, contrast: Contrast, sizes: Sequence[int], seed: int = 0) -> Made:
    """Pairs of each split (train, validation, test), as many as `sizes` says or fewer, none of them the shown one.

    InputError where there are too few words of the kind.
    """
    pair, n = contrast.pair, _SPARE * sum(sizes) + _TRIED
    lost: Lost = {}
    renamed = swaps(model, pair, n, seed, lost=lost)
    tried, rest = renamed[:_TRIED], renamed[_TRIED:]
    if tried and _preferred(model, contrast, tried) >= min(_KEPT, len(tried)):
        return _largest(model, pair, rest if contrast.own_answers else renamed, _as_shown(model, pair), sizes)
    own: Made | None = None
    if contrast.own_answers:
        with suppress(InputError):  # the model says nothing clearly: the shown answers are measured
            moved = swaps(model, pair, n, seed, in_place=True, lost=lost)
            own = _largest(model, pair, moved, OWN, sizes)
    if own is not None and not own.is_short_of(sizes):
        return own
    beside = _beside(model, contrast, n, sizes, seed, lost)
    if own is not None:
        return own if beside is None else max(own, beside, key=lambda made: len(made.task.test))
    return beside or _largest(model, pair, renamed, _as_shown(model, pair), sizes)


def _beside(model: Model, contrast: Contrast, n: int, sizes: Sequence[int], seed: int, lost: Lost) -> Made | None:
    """Pairs that keep the shown swap and its answers; None where the model does not keep to them, or too few can be
    made so."""
    found = swaps(model, contrast.pair, n, seed, beside_alone=True, lost=lost)
    tried, rest = found[:_TRIED], found[_TRIED:]
    if not tried or _preferred(model, contrast, tried) < min(_KEPT, len(tried)):
        return None
    with suppress(InputError):
        return _largest(model, contrast.pair, rest, BESIDE, sizes)
    return None


def _as_shown(model: Model, pair: Pair) -> str:
    movers = set(moving(model, pair))
    both = all(member[0] in movers for target in (pair.answers, pair.wrong) for member in target.members)
    return COPIED if both else FIXED


def _largest(model: Model, pair: Pair, found: Sequence[Swap], how: str, sizes: Sequence[int]) -> Made:
    """As many pairs as can be made: those asked, fewer to rank and search on, half as many, or the fewest."""
    some_less = (*_FEWEST[:2], sizes[2])
    half = [max(few, size // 2) for few, size in zip(_FEWEST, sizes, strict=True)]
    *larger, last = dict.fromkeys(map(tuple, (sizes, some_less, half, _FEWEST)))
    texts = _texts(model, pair, found, how)
    for some in larger:
        texts, now = tee(texts)  # what was made once is made no second time
        try:
            return Made(split_pairs(model, "the prompt", now, some), how)
        except InputError:  # too few: the next size
            continue
    try:
        return Made(split_pairs(model, "the prompt", texts, last), how)
    except InputError as error:
        raise InputError(
            f"{error.got}, made by swapping words of the same kind",
            f"at least {error.expected}",
            "Give a prompt with more words to swap, or pairs of your own as a task",
        ) from error


def _preferred(model: Model, contrast: Contrast, tried: Sequence[Swap]) -> int:
    """Swaps on which the model prefers the swapped answers, and on the counterfactual the wrong ones; where it does not
    prefer these on the shown one, on which it prefers them less than on the counterfactual."""
    kept = 0
    dropped: Counter[str] = Counter()
    for text in _texts(model, contrast.pair, tried, FIXED):
        one = pair_of(model, text, dropped)
        if one is not None:
            rows = ends(model, [one.clean, one.corrupt])
            clean, corrupt = (float(one.metric.of_logits(row[None, None])[0]) for row in rows)
            kept += clean > max(0, corrupt) and (corrupt < 0 or not contrast.own_answers)
    return kept


def _texts(model: Model, pair: Pair, found: Sequence[Swap], how: str) -> Iterator[PairText]:
    written = lambda target, swap: Target(tuple((swap.words.get(i, i),) for (i,) in target.members)).written
    shapes = [shape(model.vocabulary.string(target.members[0][0])) for target in (pair.answers, pair.wrong)]
    rest = iter(found)
    while some := list(islice(rest, 16)):  # a few at a time, so that no more are run than are asked for
        prompts = [with_ids(model, ids) for swap in some for ids in (swap.clean, swap.corrupt)]
        tops: list[torch.Tensor] = ends(model, prompts) if how == OWN else []
        for place, swap in enumerate(some):
            answers, wrong = written(pair.answers, swap), written(pair.wrong, swap)
            if how == OWN:
                two = tops[2 * place : 2 * place + 2]
                ids = [int(row.argmax()) for row in two]
                said = min(float(row.float().softmax(-1).max()) for row in two)
                if said < SAID or [shape(model.vocabulary.string(i)) for i in ids] != shapes:
                    continue
                answers, wrong = (Target.one(i).written for i in ids)
            group = " ".join(map(str, sorted(swap.words.values())))
            first, second = (Prompt.ids(list(ids)) for ids in (swap.clean, swap.corrupt))
            yield PairText(first, second, (answers,), (wrong,), group)
