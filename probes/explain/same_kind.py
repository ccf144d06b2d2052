"""Words of the same kind: what may stand in the place of a token, so that the sentence stays one.

A token that is in one of the lists has the others of its list, nearest first. Any other one has the words of its own
shape (a space in front or not, a word or a number, a capital or not) nearest by the cosine of their centred
unembeddings: words that the model writes in the same places. Where there are fewer than six, any near token will do;
but what follows a day, a month, a number or a digit is another one, however few there are.
"""

import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from probes.circuits.graph.task_texts import CAPITALS, MEN, NOUNS, WOMEN
from workbench.models.model import Model
from workbench.models.prompt import Tokens

__all__ = [
    "KINDS",
    "ORDERED",
    "Ordered",
    "is_listed",
    "is_word",
    "nearer",
    "pieces",
    "same_kind",
    "says_something",
    "shape",
]

_MORE_WOMEN = (
    "Elizabeth", "Margaret", "Kate", "Rachel", "Rebecca", "Jennifer", "Jessica", "Amanda", "Barbara", "Nancy", "Karen",
    "Ruth", "Maria", "Martha", "Emily", "Sophie", "Grace", "Lucy", "Anne", "Amy", "Rose", "Diana", "Carol", "Julie",
)  # fmt: skip
_MORE_MEN = (
    "Richard", "William", "Henry", "Charles", "Joseph", "Daniel", "Andrew", "Kevin", "Brian", "Steven", "Edward",
    "Frank", "Jack", "Tom", "Bob", "Chris", "Matthew", "Adam", "Eric", "Luke", "Ryan", "Sam", "Stephen", "Jim",
)  # fmt: skip
_MORE_COUNTRIES = (
    "Australia", "India", "Brazil", "Mexico", "Israel", "Nigeria", "Ghana", "Ethiopia", "Pakistan", "Afghanistan",
    "Nepal", "Indonesia", "Malaysia", "Argentina", "Chile", "Colombia", "Venezuela", "Bolivia", "Switzerland",
    "Netherlands", "Iceland", "Bulgaria", "Croatia", "Morocco", "Algeria", "Libya", "Sudan", "Somalia", "Uganda",
    "Tanzania", "Zimbabwe", "Jordan", "Bangladesh", "Philippines", "Jamaica", "Haiti", "Ecuador", "Cambodia",
)  # fmt: skip
KINDS: dict[str, tuple[str, ...]] = {
    "women": tuple(dict.fromkeys((*WOMEN, *_MORE_WOMEN))),
    "men": tuple(dict.fromkeys((*MEN, *_MORE_MEN))),
    "countries": (*CAPITALS, *_MORE_COUNTRIES),
    "capitals": tuple(CAPITALS.values()),
    "one thing": tuple(one for one, _ in NOUNS),
    "several things": tuple(several for _, several in NOUNS),
    "days": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "months": ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
               "November", "December"),
    "numbers": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    "digits": tuple("0123456789"),
    "colours": ("red", "green", "blue", "yellow", "black", "white", "brown", "orange", "pink", "purple", "grey"),
}  # fmt: skip
_CLOSED = frozenset({"days", "months", "numbers", "digits"})  # lists without others of their kind
_NEAREST = 600  # tokens whose text is looked at
_SHORT = 2  # letters of a word that says little by itself: of, is, to
_LITTLE_WORDS = (
    "the", "and", "for", "was", "that", "with", "his", "her", "not", "are", "but", "had", "has", "have", "this", "from",
    "they", "you", "she", "him", "them", "its", "who", "were", "been", "will", "would", "could", "their", "there",
    "then", "than", "when", "what", "which", "into", "also", "only", "very", "just", "more", "most", "some", "such",
    "one", "all", "can",
)  # fmt: skip
_SIBLINGS = (frozenset({"women", "men"}), frozenset({"one thing", "several things"}))  # that stand in for each other
_ENOUGH = 6  # words of a list that need no others beside them
_OF_SIBLINGS = 3


@dataclass(frozen=True)
class Ordered:
    """A list in its order. is_cycle: whether its first word follows its last."""

    words: tuple[str, ...]
    is_cycle: bool = False

    def between(self, one: int, other: int) -> int:
        """How far it is from a place to another."""
        return (other - one) % len(self.words) if self.is_cycle else other - one

    def word(self, place: int) -> str | None:
        """The word at a place, beyond the end only of a cycle."""
        if self.is_cycle:
            return self.words[place % len(self.words)]
        return self.words[place] if 0 <= place < len(self.words) else None


ORDERED: tuple[Mapping[str, Ordered], ...] = (  # lists that may stand for each other, together
    {"days": Ordered(KINDS["days"], True), "months": Ordered(KINDS["months"], True),
     "numbers": Ordered(("one", *KINDS["numbers"]))},
    {"digits": Ordered(KINDS["digits"])},
    {"letters": Ordered(tuple(string.ascii_uppercase))},
    {"small letters": Ordered(tuple(string.ascii_lowercase))},
)  # fmt: skip


def shape(text: str) -> tuple[bool, bool, bool, bool, bool]:
    """What tokens of one kind share: a space in front, letters, digits, a capital, a single character."""
    bare = text.strip()
    return text[:1].isspace(), bare.isalpha(), bare.isdigit(), bare[:1].isupper(), len(bare) == 1


def is_word(text: str) -> bool:
    """Whether a token says something by itself: a number, or a word that is no function word."""
    bare = text.strip()
    return bare.isdigit() or (bare.isalpha() and len(bare) > _SHORT and bare.lower() not in _LITTLE_WORDS)


def says_something(text: str) -> bool:
    """Whether a token that comes again is the same thing again: no space, punctuation or function word."""
    bare = text.strip()
    little = bare in ("a", "I") or bare.lower() in _LITTLE_WORDS or (len(bare) == _SHORT and bare.islower())
    return any(one.isalnum() for one in bare) and not little


def pieces(model: Model, tokens: Tokens) -> frozenset[int]:
    """Positions of tokens that are pieces of longer words, such as `Mont` and `ag`, or `isn` in front of `'t`, or of a
    character: another word in their place makes none. Ids that no text is written as have none."""
    own, strings = int(tokens.bos), tokens.strings
    if model.tokenizer is None or len(tokens) == own:
        return frozenset()
    if tuple(model.vocabulary.tokens(model.vocabulary.text(tokens.ids[own:]))) != tokens.ids[own:]:
        return frozenset()
    joined = [pos for pos in range(own + 1, len(strings)) if _goes_on(strings[pos - 1], strings[pos])]
    torn = [pos for pos in range(own, len(strings)) if not _is_text(model, tokens.ids[pos])]
    return frozenset((*joined, *(pos - 1 for pos in joined), *torn))


def _is_text(model: Model, token_id: int) -> bool:
    """Whether a token is whole characters, and no bytes of one."""
    try:
        model.vocabulary.bytes_of(token_id).decode()
    except UnicodeDecodeError:
        return False
    return True


def _goes_on(text: str, behind: str) -> bool:
    """Whether a word goes on in the token behind. Scripts without capitals may write words without a space."""
    cased = lambda letter: letter.lower() != letter.upper()
    return cased(text[-1:]) and (cased(behind[:1]) or behind[:2] in ("'t", "\u2019t"))


def is_listed(text: str) -> bool:
    """Whether a token is a word of one of the lists."""
    return any(text.strip() in words for words in KINDS.values())


def same_kind(
    model: Model, token_id: int, n: int, without: Collection[int] = (), *, siblings: bool = False
) -> list[int]:
    """Up to n tokens that may stand in a token's place, the likest first; none of `without`.

    siblings: also words of the list beside a token's own (men beside women), the first three, in front; and one thing
    beside several.
    """
    near = _nearness(model, token_id)
    left_out = {token_id, *without}
    ordered = lambda words: sorted((one for one in words if one not in left_out), key=lambda one: -float(near[one]))
    text = model.vocabulary.string(token_id)
    names = {name for name, words in KINDS.items() if text.strip() in words}
    found = ordered(_listed(model, text, names))
    if siblings:
        found = [*ordered(_other_number(model, text)), *found]
        beside = {name for pair in _SIBLINGS if pair & names for name in pair} - names
        found = [*ordered(_listed(model, text, beside))[:_OF_SIBLINGS], *found]
    if len(found) < min(n, _ENOUGH) and not (found and names & _CLOSED):
        wanted, word = shape(text), is_word(text)
        left_out.update(found)
        nearest = [one for one in near.topk(min(_NEAREST, len(near))).indices.tolist() if one not in left_out]
        nearest = nearest if model.tokenizer is None else [one for one in nearest if _is_text(model, one)]
        texts = {one: model.vocabulary.string(one) for one in nearest}
        alike = [one for one in nearest if shape(texts[one]) == wanted and is_word(texts[one]) >= word]
        found += alike if len(alike) >= _ENOUGH else nearest
    return found[:n]


def nearer(model: Model, words: Sequence[int], token_id: int, rivals: Collection[int]) -> list[int]:
    """Those of words that are nearer to a token than to any of its rivals: what is like *uncle* is not like *aunt*."""
    near, others = _nearness(model, token_id), [_nearness(model, rival) for rival in rivals]
    return [one for one in words if all(near[one] > other[one] for other in others)]


@torch.no_grad()
def _nearness(model: Model, token_id: int) -> torch.Tensor:
    """Cosine of a token's centred unembedding with that of each, `[d_vocab]`."""
    weights = model.readout.W_U.detach().float()
    mean = weights.mean(0)
    own = weights[token_id] - mean
    along, across = (weights @ torch.stack([own, mean], 1)).T
    apart = torch.linalg.vector_norm(weights, dim=-1) ** 2 - 2 * across + mean @ mean  # no copy of the vocabulary
    found: torch.Tensor = (along - mean @ own) / apart.clamp(min=1e-9).sqrt()
    return found / torch.linalg.vector_norm(own).clamp(min=1e-9)


def _other_number(model: Model, text: str) -> list[int]:
    """The word with an s more, or less."""
    bare = text.strip()
    if model.tokenizer is None or not (bare.isalpha() and is_word(text)):
        return []
    other = text[:-1] if bare.endswith("s") and not bare.endswith("ss") else f"{text}s"
    ids = model.vocabulary.tokens(other)
    return [ids[0]] if len(ids) == 1 and model.vocabulary.string(ids[0]) == other else []


def _listed(model: Model, text: str, names: Collection[str]) -> list[int]:
    """The words of lists that are single tokens, written as a token's text is."""
    if model.tokenizer is None:
        return []
    space = text[: len(text) - len(text.lstrip())]
    found = []
    for word in dict.fromkeys(word for name in KINDS if name in names for word in KINDS[name]):
        ids = model.vocabulary.tokens(f"{space}{word}")
        if len(ids) == 1 and model.vocabulary.string(ids[0]) == f"{space}{word}":
            found.append(ids[0])
    return found
