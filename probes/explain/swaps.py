"""Ways to put other words into a pair of prompts, so that each gives another pair like it.

A sequence (Monday, Tuesday, Wednesday; 2, 4, 6) is moved along its list, and into other lists, with its steps. Else a
word is renamed wherever it stands, with a space in front or not, with a capital or not: what was the same word stays
the same. A piece of a longer word stays as it is. Of words that are in no list only the likest that make a sentence
(`fluent`) are taken at first; farther ones come where there are too few. Digits may instead be replaced where they
stand (`in_place`), where an answer is worked out from them. Sums that are written out with what they make stay as they
are: with another digit they would be false.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise

import numpy as np

from probes.circuits.graph.tasks import Pair
from probes.explain.fluent import SENTENCE, fluent
from probes.explain.same_kind import ORDERED, Ordered, is_listed, is_word, nearer, pieces, same_kind, says_something
from workbench.models.model import Model

__all__ = ["Lost", "Swap", "moving", "swaps"]

_ENOUGH = 12  # words for each token, at least
_FEW = 6  # words of a list that are few
_BESIDE = 8  # for each other word of the prompt
_SUM = re.compile(r"\d+\s*(?:[-+*/×x]\s*\d+\s*)+=\s*\d+")
_SPARE = 4  # near words beside those wanted, of which it is asked as well whether they make a sentence
_RUN = 3  # words of a list that are a sequence


Lost = dict[int, dict[int, float]]  # by token, what the prompt loses with each word in its place


@dataclass(frozen=True)
class Swap:
    """Two prompts with other words. words: what each token became, for answers; of a digit in place, nothing."""

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    words: Mapping[int, int] = field(hash=False, compare=False)

    @classmethod
    def of(cls, pair: Pair, words: Mapping[int, int]) -> "Swap":
        """Of tokens, wherever they stand."""
        renamed = lambda ids: tuple(words.get(i, i) for i in ids)
        return cls(renamed(pair.clean.ids), renamed(pair.corrupt.ids), words)

    def then(self, other: "Swap", pair: Pair) -> "Swap":
        """Both: what the other one changes in the shown pair is changed here as well."""
        both = lambda *three: tuple(b if b != shown else a for a, b, shown in zip(*three, strict=True))
        return Swap(
            both(self.clean, other.clean, pair.clean.ids),
            both(self.corrupt, other.corrupt, pair.corrupt.ids),
            {**self.words, **other.words},
        )


def moving(model: Model, pair: Pair) -> list[int]:
    """Tokens in which the prompts differ, and answers that stand in a prompt and say something by themselves."""
    apart = [(a, b) for a, b in zip(pair.clean.ids, pair.corrupt.ids, strict=True) if a != b]
    prompts = set(pair.clean.ids) | set(pair.corrupt.ids)
    answers = [one for target in (pair.answers, pair.wrong) for (one,) in target.members
               if one in prompts and says_something(model.vocabulary.string(one))]  # fmt: skip
    return list(dict.fromkeys([*(a for a, _ in apart), *(b for _, b in apart), *answers]))


def swaps(
    model: Model,
    pair: Pair,
    n: int,
    seed: int,
    *,
    in_place: bool = False,
    beside_alone: bool = False,
    lost: Lost | None = None,
) -> list[Swap]:
    """Up to n different ones, each with two prompts that are new: first sequences, then what moves, then other words of
    the prompt beside it, one at a time and the last ones first; then the same with farther words.

    beside_alone: what moves stays; other words are swapped, one at a time, then two. So where nothing can move, too.
    lost: what other calls on this pair have learned of words, and where this one leaves it.
    """
    random = np.random.default_rng(seed)
    movers, broken = moving(model, pair), _pieces(model, pair)
    shuffled = lambda found: [found[i] for i in random.permutation(len(found))]
    lost = {} if lost is None else lost
    other = lambda one, n, farther: shuffled(
        _others(model, pair, one, movers, n, lost, in_place=in_place, farther=farther)
    )
    make = partial(_in_place if in_place else _renamed, model, pair)
    sequences, new = [] if beside_alone else list(_sequences(model, pair)), _New(pair, n, _written_out(model, pair))
    held = {*movers, *broken, *(token for swap in sequences for token in swap.words)}
    others = [one for one in dict.fromkeys(reversed(pair.clean.ids[:-1]))
              if one not in held and is_word(model.vocabulary.string(one))]  # fmt: skip
    for farther in (False, True):
        many = lambda one, farther=farther: max(_ENOUGH, n // 2) if farther or _listed(model, one) else _ENOUGH
        moved = [] if beside_alone else [one for one in movers if one not in broken]
        words = {one: found for one in moved if (found := other(one, many(one), farther))}
        shifted = sequences or list(filter(None, map(make, _together(words, 4 * n))))
        shifted = shifted or list(new.found) or [Swap.of(pair, {})]
        for swap in shifted:
            new.take(swap)
        for one in others:
            if new.is_full:
                return new.found
            beside = filter(None, (make({one: word}) for word in other(one, _BESIDE, farther)))
            _beside(new, pair, shifted, beside)
    return new.found


def _pieces(model: Model, pair: Pair) -> set[int]:
    """Tokens that stand somewhere as a piece of a longer word."""
    return {tokens.ids[pos] for tokens in (pair.clean, pair.corrupt) for pos in pieces(model, tokens)}


def _listed(model: Model, token: int) -> bool:
    return is_listed(model.vocabulary.string(token))


def _beside(new: "_New", pair: Pair, shifted: Sequence[Swap], words: Iterable[Swap]) -> None:
    """What moves, with another word of the prompt swapped as well."""
    for word in words:
        for swap in shifted:
            both = swap.then(word, pair)
            if not new.is_full and len(set(both.words.values())) == len(both.words):  # what was apart stays apart
                new.take(both)


class _New:
    """Swaps of which both prompts are new. stay: places that no swap changes."""

    def __init__(self, pair: Pair, n: int, stay: Iterable[int]) -> None:
        self.found: list[Swap] = []
        shown = {pair.clean.ids, pair.corrupt.ids}
        self._n, self._seen, self._pair, self._stay = n, (set(shown), set(shown)), pair, set(stay)

    @property
    def is_full(self) -> bool:
        """Whether no more are wanted."""
        return len(self.found) >= self._n

    def take(self, swap: Swap) -> None:
        """Where it is one."""
        both = self._held(swap.clean, self._pair.clean.ids), self._held(swap.corrupt, self._pair.corrupt.ids)
        apart = both[0] != both[1]
        if apart and not self.is_full and all(a not in b for a, b in zip(both, self._seen, strict=True)):
            self.found.append(Swap(*both, swap.words))
            for one, known in zip(both, self._seen, strict=True):
                known.add(one)

    def _held(self, ids: Sequence[int], shown: Sequence[int]) -> tuple[int, ...]:
        return tuple(
            old if place in self._stay else new for place, (old, new) in enumerate(zip(shown, ids, strict=True))
        )


def _written_out(model: Model, pair: Pair) -> Iterator[int]:
    """Places of the digits of a sum with its result, such as 5 + 2 = 7, where both prompts have them."""
    texts = [model.vocabulary.string(i) for i in pair.clean.ids]
    starts = list(accumulate(map(len, texts), initial=0))
    sums = [found.span() for found in _SUM.finditer("".join(texts))]
    for place, (text, start) in enumerate(zip(texts, starts, strict=False)):
        is_alike = pair.clean.ids[place] == pair.corrupt.ids[place]
        if is_alike and text.strip().isdigit() and any(a < start + len(text) and start < b for a, b in sums):
            yield place


def _others(
    model: Model, pair: Pair, token: int, movers: Iterable[int], n: int, lost: Lost, *, in_place: bool, farther: bool
) -> list[int]:
    """What a token may become: no token of the prompts; of few one that moves away, too. In place any digit.

    Of words that are in no list, those that make a sentence and, where the prompts differ, are liker to the word that
    they stand for than to that of the other prompt; farther: then the others.
    """
    text = model.vocabulary.string(token)
    if in_place and text.strip().isdigit():
        return same_kind(model, token, n)
    used = set(pair.clean.ids) | set(pair.corrupt.ids)
    if not is_listed(text) and model.tokenizer is not None:
        near = nearer(model, same_kind(model, token, n + _SPARE, used), token, _rivals(pair, token))
        if token not in lost:
            ids = pair.clean.ids if token in pair.clean.ids else pair.corrupt.ids
            lost[token] = fluent(model, ids, token, near)
        said = [one for one, nats in lost[token].items() if farther or nats <= SENTENCE]
        return [*said, *(one for one in near if farther and one not in lost[token])][:n]
    found = same_kind(model, token, n, used)
    if len(found) >= _FEW or not is_listed(text):
        return found
    return same_kind(model, token, n, used - set(movers))


def _rivals(pair: Pair, token: int) -> set[int]:
    """What stands in the other prompt where a token stands in one alone."""
    both = [(a, b) for a, b in zip(pair.clean.ids, pair.corrupt.ids, strict=True) if a != b]
    return {b for a, b in both if a == token} | {a for a, b in both if b == token}


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


def _renamed(model: Model, pair: Pair, words: Mapping[int, int]) -> Swap | None:
    """A word in all its forms; None where a form of the new word is no single token."""
    everywhere = {*pair.clean.ids, *pair.corrupt.ids, *(i for t in (pair.answers, pair.wrong) for (i,) in t.members)}
    swapped = dict(words)
    for token, new in words.items():
        text, word = (model.vocabulary.string(one) for one in (token, new))
        if model.tokenizer is None or not text.strip().isalpha():
            continue
        for form in everywhere - set(words):
            written = model.vocabulary.string(form)
            if written.strip().lower() != text.strip().lower():
                continue
            found = _token(model, _like(written, text, word))
            if found is None:
                return None
            swapped[form] = found
    return Swap.of(pair, swapped)


def _in_place(model: Model, pair: Pair, words: Mapping[int, int]) -> Swap | None:
    """Digits where the prompts differ, another one where it stands last; other words as `_renamed`."""
    digits = {one: new for one, new in words.items() if model.vocabulary.string(one).strip().isdigit()}
    swap = _renamed(model, pair, {one: new for one, new in words.items() if one not in digits})
    if swap is None:
        return None
    clean, corrupt = list(swap.clean), list(swap.corrupt)
    apart = [place for place, (a, b) in enumerate(zip(pair.clean.ids, pair.corrupt.ids, strict=True)) if a != b]
    for place in apart:
        clean[place] = digits.get(pair.clean.ids[place], clean[place])
        corrupt[place] = digits.get(pair.corrupt.ids[place], corrupt[place])
    answers = {i for target in (pair.answers, pair.wrong) for (i,) in target.members}
    differing = {ids[place] for place in apart for ids in (pair.clean.ids, pair.corrupt.ids)}
    for one in digits.keys() - differing - answers:
        place = max(place for place, i in enumerate(pair.clean.ids) if i == one)
        clean[place] = corrupt[place] = digits[one]
    return Swap(tuple(clean), tuple(corrupt), swap.words)


def _like(form: str, text: str, word: str) -> str:
    """A word as a form of another one is written: `form` is to `text` what is returned is to `word`."""
    bare, old, new = form.strip(), text.strip(), word.strip()
    if bare != old:
        new = new.capitalize() if bare[:1].isupper() else new.lower()
    return form[: len(form) - len(form.lstrip())] + new


def _token(model: Model, text: str) -> int | None:
    """The single token of a text."""
    ids = model.vocabulary.tokens(text)
    return ids[0] if len(ids) == 1 and model.vocabulary.string(ids[0]) == text else None


# --- sequences -------------------------------------------------------------------------------------------------------


def _sequences(model: Model, pair: Pair) -> Iterator[Swap]:
    """The pair with its sequence begun elsewhere in its list, then in the other lists of its group."""
    texts = [model.vocabulary.string(i).strip() for i in pair.clean.ids]
    for group in ORDERED if model.tokenizer is not None else ():
        for name, listed in group.items():
            places = [listed.words.index(text) for text in texts if text in listed.words]
            steps = {listed.between(a, b) for a, b in pairwise(places)}
            if len(places) < _RUN or len(steps) != 1 or steps == {0}:
                continue
            for other in (listed, *(one for key, one in group.items() if key != name)):
                for start in range(len(other.words)):
                    if (swap := _moved(model, pair, listed, places[0], other, start)) is not None:
                        yield swap
            return


def _moved(model: Model, pair: Pair, listed: Ordered, first: int, other: Ordered, start: int) -> Swap | None:
    """The words of a list as those of another, as far from its start as they are from the first of the sequence."""
    answers = [i for target in (pair.answers, pair.wrong) for (i,) in target.members]
    swapped: dict[int, int] = {}
    prompts = {*pair.clean.ids, *pair.corrupt.ids}
    for one in dict.fromkeys((*pair.clean.ids, *pair.corrupt.ids, *answers)):
        text = model.vocabulary.string(one)
        if text.strip() not in listed.words:
            continue
        word = other.word(start + listed.between(first, listed.words.index(text.strip())))
        found = None if word is None else _token(model, text[: len(text) - len(text.lstrip())] + word)
        if found is None and one in prompts:
            return None
        if found is not None:
            swapped[one] = found
    return Swap.of(pair, swapped)
