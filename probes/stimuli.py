"""Stimuli that several rooms look at: random tokens that repeat, with partners that do not; indirect objects."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from workbench.analysis.kinds import Stimulus
from workbench.errors import InputError, RefusedError
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.models.target import target_of

__all__ = ["LENGTH", "SHORTEST", "ioi_prompts", "names_of", "need_english", "repeated_tokens"]

LENGTH = 96  # tokens after the first, where nobody asks for another length
SHORTEST = 12  # tokens after the first: periods of 4 and more keep the three keys of a query apart

_NAMES = ("Anna", "Peter", "Laura", "Simon", "Julia", "Martin", "Emma", "David", "Sarah", "Robert", "Alice", "Thomas")
_PEOPLE = 3  # of a sentence and its baseline
_PLACES = ("the market", "the library", "the station", "the garden")
_THINGS = ("an apple", "a book", "a ticket", "an umbrella")
_TEMPLATES = (
    "When {a} and {b} went to {place}, {c} gave {thing} to",
    "After {a} and {b} had lunch at {place}, {c} handed {thing} to",
    "{a} and {b} met near {place}, and then {c} passed {thing} to",
)


def repeated_tokens(model: Model, *, n_sequences: int, length: int, seed: int) -> Stimulus:
    """Repeated random tokens, and as many sequences of the same length without a repeat.

    Every sequence is the token that the tokenizer itself puts first (a BOS token mostly; an ordinary one where it adds
    nothing) and `length` ordinary tokens (fewer where n_ctx or the vocabulary is smaller). A repeated one draws its
    period from a third to a half of that, and its tokens without replacement, so that the previous occurrence is
    unique. Its partner has no repeat. fields: `period` (0 in partners) and `lag`, the offset to score at: the period,
    in both of a pair. Raises RefusedError for a model with too little context.
    """
    random = np.random.default_rng(seed)
    first, ordinary = _vocabulary(model, random)
    length = min(length, model.sizes.n_ctx - 1, len(ordinary))
    if length < SHORTEST:
        raise RefusedError(
            f"{model.name}, which leaves {length} different tokens in a row",
            f"at least {SHORTEST} (n_ctx {model.sizes.n_ctx}, {len(ordinary)} ordinary tokens)",
            "Use a model with a longer context or a larger vocabulary",
        )
    lags = random.integers(length // 3, length // 2, n_sequences, endpoint=True)
    repeated = [np.resize(random.choice(ordinary, lag, replace=False), length) for lag in lags]
    plain = [random.choice(ordinary, length, replace=False) for _ in lags]
    tokens = tuple(tokenise(model, Prompt.ids([first, *row.tolist()])) for row in (*repeated, *plain))
    period = np.concatenate([lags, np.zeros_like(lags)])
    return Stimulus(tokens, {"period": torch.tensor(period), "lag": torch.tensor(np.concatenate([lags, lags]))})


def _vocabulary(model: Model, random: np.random.Generator) -> tuple[int, np.ndarray]:
    """The token for position 0, and up to 8192 ordinary ones: neither special nor added, and text of their own."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return 0, np.arange(1, model.sizes.d_vocab)
    front = model.vocabulary.prefix
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values(), *front}
    candidates = random.permutation(min(model.sizes.d_vocab, len(tokenizer)))[:8192]
    ordinary = [int(i) for i in candidates if i not in special and _is_text(tokenizer.decode([int(i)]))]
    if not front:
        return ordinary[0], np.array(ordinary[1:])
    return front[0], np.array(ordinary)


def _is_text(piece: str) -> bool:
    """False for half of a multi-byte character, control characters and nothing at all."""
    return bool(piece) and "\ufffd" not in piece and (piece.isprintable() or piece.isspace())


def need_english(model: Model) -> None:
    """InputError for a model that cannot read the texts that are written here."""
    if model.tokenizer is None:
        raise InputError(f"{model.name}, which has no tokenizer", "a model that reads English", "Give its tokenizer")


def names_of(model: Model) -> tuple[str, ...]:
    """The names of indirect objects that are single tokens of a model, since answers are compared by one logit each.
    InputError where these are fewer than a sentence has people."""
    need_english(model)
    n_tokens = {name: target_of(model.vocabulary, f" {name}").length for name in _NAMES}
    names = tuple(name for name, n in n_tokens.items() if n == 1)
    if len(names) < _PEOPLE:
        cut, n = max(n_tokens.items(), key=lambda item: item[1])
        raise InputError(
            f"indirect objects on {model.name}, whose tokenizer cuts names ({f' {cut}'!r} into {n} tokens)",
            f"at least {_PEOPLE} names of one token each", "Use another task, or prompts of your own",
        )  # fmt: skip
    return names


def ioi_prompts(
    n: int, seed: int = 0, *, apart_from: Iterable[dict[str, str]] = (), names: Sequence[str] = _NAMES
) -> list[dict[str, str]]:
    """Sentences of indirect object identification and their baseline: two people, one of whom gives the other
    something.

    No sentence comes twice, nor as one's `task` and another's `swapped`, and none is in `apart_from`: what was found on
    some is tested on others. names: of the people (`names_of` a model). Raises InputError where there are not as many.

    Each has `task` (the giver is one of the two, so that the other is meant), `swapped` (the other one gives),
    `baseline` (a third person gives, so that nobody is singled out), `answer` (" Laura") and `wrong` (the giver).
    """
    rng = np.random.default_rng(seed)
    known = {text for one in apart_from for text in (one["task"], one["swapped"])}
    most = len(names) * (len(names) - 1) * len(_PLACES) * len(_THINGS) * len(_TEMPLATES) - len(known) // 2
    if n > most:
        raise InputError(f"{n} prompts of indirect objects", f"at most {most}, which all differ", "Ask for fewer")
    found: list[dict[str, str]] = []
    while len(found) < n:
        first, second, third = rng.choice(names, _PEOPLE, replace=False)
        giver, other = (first, second) if rng.random() < 0.5 else (second, first)
        fill = {"a": first, "b": second, "place": rng.choice(_PLACES), "thing": rng.choice(_THINGS)}
        template = str(rng.choice(_TEMPLATES))
        one = {
            "task": template.format(c=giver, **fill), "swapped": template.format(c=other, **fill),
            "baseline": template.format(c=third, **fill),
            "answer": f" {other}", "wrong": f" {giver}",
        }  # fmt: skip
        if one["task"] not in known:
            known |= {one["task"], one["swapped"]}
            found.append(one)
    return found
