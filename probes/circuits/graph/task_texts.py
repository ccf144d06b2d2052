"""Texts of tasks with pairs: a clean prompt, a counterfactual one of the same form, answers and wrong answers.

Each generator draws without end; `group` names what mirrored or reworded pairs share, so that they stay on one side of
a split. Answers are texts of tokens; several are a set.

Sources: indirect objects arXiv 2211.00593; greater-than arXiv 2305.00586; pronouns arXiv 2206.00936 (its templates are
ours); agreement arXiv 1611.01368; docstrings arXiv 2304.14997 (Conmy et al.); letters arXiv 2307.09458. Wordings are
ours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from probes.stimuli import ioi_prompts
from workbench.models.prompt import Prompt

__all__ = ["CAPITALS", "MEN", "NOUNS", "TASKS", "WOMEN", "PairText"]


@dataclass(frozen=True)
class PairText:
    """One pair as prompts; answers and wrong: sets of answers."""

    clean: str | Prompt
    corrupt: str | Prompt
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
    group: str


Texts = Iterator[PairText]
WOMEN = ("Mary", "Anna", "Laura", "Julia", "Emma", "Sarah", "Alice", "Jane", "Lisa", "Susan", "Linda", "Helen")
MEN = ("John", "Peter", "Simon", "Martin", "David", "Robert", "Thomas", "James", "Michael", "Paul", "Mark", "George")
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Russia": "Moscow", "Japan": "Tokyo",
    "China": "Beijing", "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw",
    "Ireland": "Dublin", "Portugal": "Lisbon", "Sweden": "Stockholm", "Norway": "Oslo", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Cuba": "Havana", "Peru": "Lima", "Canada": "Ottawa", "Turkey": "Ankara",
    "Iran": "Tehran", "Iraq": "Baghdad", "Syria": "Damascus", "Hungary": "Budapest", "Belgium": "Brussels",
    "England": "London", "Kenya": "Nairobi", "Thailand": "Bangkok", "Lebanon": "Beirut", "Vietnam": "Hanoi",
    "Ukraine": "Kiev", "Romania": "Bucharest", "Serbia": "Belgrade", "Scotland": "Edinburgh", "Qatar": "Doha",
}  # fmt: skip
_FACTS = (
    "The capital of {} is", "The city that governs {} is called", "{}'s capital is the city of",
    "The government of {} sits in", "The capital city of {} is named",
)  # fmt: skip
_EVENTS = (
    "war", "siege", "strike", "trial", "journey", "voyage", "project", "festival", "dispute", "study", "treaty",
)  # fmt: skip
NOUNS = (
    ("key", "keys"), ("book", "books"), ("car", "cars"), ("dog", "dogs"), ("letter", "letters"), ("farmer", "farmers"),
    ("doctor", "doctors"), ("picture", "pictures"), ("table", "tables"), ("house", "houses"), ("song", "songs"),
    ("author", "authors"), ("student", "students"), ("teacher", "teachers"), ("window", "windows"), ("river", "rivers"),
)  # fmt: skip
_WITH = ("near the {}", "behind the {}", "with the {}", "that the {} saw", "beside the {}", "next to the {}")
_FRIENDS = (
    "So {} is a really great friend, isn't", "Well, {} is a very good cook, isn't", "I think {} is a kind soul, isn't",
    "Surely {} was at the party, wasn't", "So {} is the new teacher, isn't", "Of course {} was a bit late, wasn't",
    "And {} is the best player here, isn't", "Clearly {} is very busy today, isn't", "So {} is now a doctor, isn't",
)  # fmt: skip
_ARGUMENTS = (
    "files", "size", "name", "state", "value", "index", "path", "date", "key", "file", "page", "user", "line", "text",
    "image", "code", "result", "test", "group", "model",
)  # fmt: skip
_THINGS = (
    "an apple", "a chair", "a train", "a river", "a violin", "a hammer", "a spoon", "a horse", "a cloud", "a shirt",
)  # fmt: skip
_LETTERS = ("A", "B", "C", "D")


def _indirect_objects(rng: np.random.Generator) -> Texts:
    while True:
        (one,) = ioi_prompts(1, int(rng.integers(2**31)))
        group = min(one["task"], one["swapped"])
        yield PairText(one["task"], one["swapped"], (one["answer"],), (one["wrong"],), group)


def _greater_than(rng: np.random.Generator) -> Texts:
    while True:
        event, century = str(rng.choice(_EVENTS)), int(rng.integers(11, 20))
        tens, ones = int(rng.integers(2, 8)), int(rng.integers(2, 9))
        text = "The {} lasted from the year {}{} to the year {}"
        clean, corrupt = (text.format(event, century, year, century) for year in (f"{tens}{ones}", "01"))
        digits = [str(d) for d in range(10)]
        # Where digits are tokens, the same tens digit leaves the comparison open: it is in neither set.
        yield PairText(clean, corrupt, tuple(digits[tens + 1 :]), tuple(digits[:tens]), f"{event} {century}")


def _pronouns(rng: np.random.Generator) -> Texts:
    while True:
        woman, man, text = str(rng.choice(WOMEN)), str(rng.choice(MEN)), str(rng.choice(_FRIENDS))
        clean, corrupt, answers = (woman, man, (" she", " he")) if rng.random() < 0.5 else (man, woman, (" he", " she"))
        yield PairText(text.format(clean), text.format(corrupt), answers[:1], answers[1:], f"{woman} {man} {text}")


def _agreement(rng: np.random.Generator) -> Texts:
    numbers = (" is", " was", " has"), (" are", " were", " have")
    while True:
        subject, other = rng.choice(len(NOUNS), 2, replace=False)
        between = str(rng.choice(_WITH)).format(NOUNS[other][int(rng.integers(2))])
        number = int(rng.integers(2))
        clean, corrupt = (f"The {NOUNS[subject][n]} {between}" for n in (number, 1 - number))
        yield PairText(clean, corrupt, numbers[number], numbers[1 - number], f"{subject} {between}")


def _capitals(rng: np.random.Generator) -> Texts:
    while True:
        first, second = rng.choice(sorted(CAPITALS), 2, replace=False)
        text = str(rng.choice(_FACTS))
        group = " ".join(sorted((first, second)))
        answers = f" {CAPITALS[first]}", f" {CAPITALS[second]}"
        yield PairText(text.format(first), text.format(second), answers[:1], answers[1:], group)


def _arithmetic(rng: np.random.Generator) -> Texts:
    while True:
        a, b, c = (int(n) for n in rng.integers(1, 9, 3))
        if a + b > 9 or a + c > 9 or b == c:
            continue
        shown = [(int(x), int(rng.integers(1, 10 - x))) for x in rng.integers(1, 9, 3)]
        start = "".join(f"{x} + {y} = {x + y}\n" for x, y in shown)
        text = start + "{} + {} ="
        answers = f" {a + b}", f" {a + c}"
        yield PairText(text.format(a, b), text.format(a, c), answers[:1], answers[1:], f"{start}{a}")


def _docstrings(rng: np.random.Generator) -> Texts:
    while True:
        names = [str(name) for name in rng.choice(_ARGUMENTS, 7, replace=False)]
        text = 'def load({}, {}, {}, {}):\n    """Load it.\n\n'
        text += "    :param {}: the first one\n    :param {}: the second one\n    :param"
        clean = text.format(*names[:4], *names[:2])
        corrupt = text.format(*names[:2], *names[4:6], *names[:2])
        yield PairText(clean, corrupt, (f" {names[2]}",), (f" {names[4]}",), " ".join(sorted((names[2], names[4]))))


def _letters(rng: np.random.Generator) -> Texts:
    while True:
        things = [str(thing) for thing in rng.choice(_THINGS, 4, replace=False)]
        right, other = (int(n) for n in rng.choice(4, 2, replace=False))
        swapped = list(things)
        swapped[right], swapped[other] = things[other], things[right]
        text = lambda shown: "".join(f"{a}: {thing}\n" for a, thing in zip(_LETTERS, shown, strict=True))
        asked = f"Which letter is {things[right]}?\nAnswer:"
        answers = f" {_LETTERS[right]}", f" {_LETTERS[other]}"
        yield PairText(text(things) + asked, text(swapped) + asked, answers[:1], answers[1:], " ".join(sorted(things)))


TASKS: dict[str, Callable[[np.random.Generator], Texts]] = {
    "indirect object": _indirect_objects,
    "greater than": _greater_than,
    "pronoun": _pronouns,
    "agreement": _agreement,
    "capital": _capitals,
    "arithmetic": _arithmetic,
    "docstring": _docstrings,
    "letter": _letters,
}
