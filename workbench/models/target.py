"""Target: what is asked of a prediction.

One token; several in a row, whose log-probabilities are summed; or any of a set, whose probabilities are. Written as
text, by ids (`#17`, `#17 #18`), or as a JSON list of these for a set: `["4", "5", "#17"]`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import InputError
from workbench.models.vocabulary import Vocabulary, by_id

__all__ = ["Target", "behind", "likelier", "need_apart", "need_one_token", "shared_start", "target_of", "unread"]

_NAMED = 5  # members of a set that are named


@dataclass(frozen=True)
class Target:
    """Token ids of each member, in order; one member unless it is a set."""

    members: tuple[tuple[int, ...], ...]

    @classmethod
    def one(cls, token_id: int) -> "Target":
        """A single token."""
        return cls(((int(token_id),),))

    @property
    def token(self) -> int | None:
        """Its id where it is a single token."""
        return self.members[0][0] if len(self.members) == len(self.members[0]) == 1 else None

    @property
    def length(self) -> int:
        """Tokens of its longest member."""
        return max(map(len, self.members))

    @property
    def written(self) -> str:
        """How it is asked for again, by ids."""
        texts = [" ".join(map(by_id, member)) for member in self.members]
        return texts[0] if len(texts) == 1 else json.dumps(texts)

    def label(self, vocabulary: Vocabulary) -> str:
        """Its text, for people."""
        texts = [vocabulary.text(member) for member in self.members]
        return texts[0] if len(texts) == 1 else " | ".join(texts)

    def describe(self, vocabulary: Vocabulary) -> str:
        """In words: `' Paris'`, `' Czech Republic' (2 tokens, summed)`, `any of 3 ('4', '5', '6')`."""
        said = [repr(vocabulary.text(member)) for member in self.members[:_NAMED]]
        if len(self.members) > 1:
            more = ", ..." if len(self.members) > _NAMED else ""
            return f"any of {len(self.members)} ({', '.join(said)}{more})"
        return said[0] if self.length == 1 else f"{said[0]} ({self.length} tokens, summed)"


def target_of(vocabulary: Vocabulary, text: str) -> Target:
    """The target that a text stands for.

    Raises InputError for an empty one, ids outside the vocabulary, a text that the tokenizer has no tokens for, and a
    set one of whose members begins another: their probabilities overlap.
    """
    members = tuple(dict.fromkeys(vocabulary.tokens(one) for one in _members(text)))
    for one in unread(vocabulary, text):
        raise InputError(
            f"the target {one!r}, which the tokenizer reads as {vocabulary.text(vocabulary.tokens(one))!r}",
            "a text that it has tokens for", "Take another one, or an id such as #17",
        )  # fmt: skip
    if (pair := _beginning(members, members)) is not None:
        raise InputError(
            f"a set that holds {vocabulary.text(pair[0])!r} and {vocabulary.text(pair[1])!r}, which begins with it",
            "members of which none begins another",
            "Leave one out",
        )
    return Target(members)


def need_apart(vocabulary: Vocabulary, target: Target, against: Target) -> None:
    """InputError where two targets overlap: a difference of what is in both says nothing of either."""
    both = tuple(one for one in against.members if one in target.members)
    if both:
        raise InputError(f"the same token {Target(both).label(vocabulary)!r} twice", "two tokens", "Choose another one")
    pair = _beginning(target.members, against.members) or _beginning(against.members, target.members)
    if pair is not None:
        raise InputError(
            f"{vocabulary.text(pair[0])!r} against {vocabulary.text(pair[1])!r}, which begins with it",
            "targets of which none begins the other",
            "Choose another one",
        )


def _beginning(
    shorter: Sequence[tuple[int, ...]], longer: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The first member that begins another one, and that one."""
    return next(
        ((short, long) for short in shorter for long in longer if short != long and long[: len(short)] == short), None
    )


def unread(vocabulary: Vocabulary, text: str) -> list[str]:
    """What of a target, the text or members of the set, the tokenizer has no tokens for."""
    return [one for one in _members(text) if not vocabulary.reads(one)]


def _members(text: str) -> list[str]:
    """The texts of a set, or the text itself."""
    if text.startswith("["):
        try:
            listed: Any = json.loads(text)
        except (ValueError, RecursionError):
            return [text]
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed):
            return listed
    return [text]


def behind(attrs: Mapping[str, Any]) -> int:
    """How many tokens of a longer target stand behind the prompt's own in a result, by its `target_ids` and
    `against_ids`: all but the last one. The prompt's last token lies so far in front of the result's."""
    written = (str(attrs.get(f"{name}_ids") or "") for name in ("target", "against"))
    members = [member for text in written if text.startswith(("#", "[")) for member in _members(text)]
    return max((len(member.split()) for member in members), default=1) - 1


def need_one_token(vocabulary: Vocabulary, text: str, what: str) -> int:
    """The id of a target that must be a single token. what: it is for, in words, such as "a direct attribution"."""
    target = target_of(vocabulary, text)
    if target.token is None:
        remedy = f"Mind the space, or use its first token {vocabulary.string(target.members[0][0])!r}"
        (other,) = _spaced([text])
        if text.strip() and len(target.members) == 1 and target_of(vocabulary, other).token is not None:
            remedy = f"Take {other!r}, which is one"
        raise InputError(f"{target.describe(vocabulary)} for {what}", "a text that is one token", remedy)
    return target.token


def _spaced(texts: Sequence[str]) -> list[str]:
    """The same with a space in front, or without where they have one."""
    return [text.removeprefix(" ") if text.startswith(" ") else f" {text}" for text in texts]


def shared_start(targets: Sequence[Target], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The tokens that must follow the prompt, so that one run gives the probabilities of all tokens of the targets.

    Raises InputError where the targets go on in different ways.
    """
    starts = [member[:-1] for target in targets for member in target.members]
    longest = max(starts, key=len)
    for start in starts:
        if longest[: len(start)] != start:
            raise InputError(
                f"targets that go on behind {vocabulary.text(start)!r} and behind {vocabulary.text(longest)!r}",
                "targets of which one run can tell all tokens",
                "Compare with a single token, or measure them one after the other",
            )
    return longest


def likelier(vocabulary: Vocabulary, text: str, log_probs: torch.Tensor) -> str:
    """What to say where a target with or without a space in front would be likelier; else "".

    log_probs: of the next token, `[d_vocab]`. Compared by first tokens: of a form of several the first alone is
    likelier than the whole, so that no more is said than that (`ü` is one token, ` ü` a space that much may follow).
    """
    taken = _members(text)
    if any(one.strip() == "" or one.lstrip()[0] in "#⟨" for one in taken):  # ids and bytes are meant as they are
        return ""
    other = _spaced(taken)
    own = target_of(vocabulary, _text(taken))
    try:
        its = target_of(vocabulary, _text(other))
    except InputError:  # with the spaces moved it would be no target: one member begins another
        return ""
    first = lambda target: float(log_probs[sorted({member[0] for member in target.members})].logsumexp(0))
    if not first(its) > first(own):
        return ""
    form = "with" if other[0].startswith(" ") else "without"
    by = "" if own.length == 1 else "by its first token "
    does = "is likelier here" if its.length == 1 else "begins with a likelier token here"
    return (
        f"{_named(taken)} was taken as typed ({by}{first(own):.2f} nats); {_named(other)}, {form} a space in front, "
        f"{does} ({first(its):.2f} nats)."
    )


def _text(members: Sequence[str]) -> str:
    return members[0] if len(members) == 1 else json.dumps(list(members))


def _named(members: Sequence[str]) -> str:
    return repr(members[0]) if len(members) == 1 else f"The set from {members[0]!r} on"
