"""The texts of a study: documents by domain, cut to one length, in the order they are run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.corpora import Document
from workbench.errors import InputError, RefusedError
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise

__all__ = ["MIN_TEXTS", "Texts", "chosen_texts"]

MIN_TEXTS = 10  # of a domain, for a contrast


@dataclass(frozen=True)
class Texts:
    """All texts in the order they are run: the domains take turns, so that what is done early is balanced.

    place: (domain, prompt) of each. skipped: names of documents that were too short, by domain.
    """

    tokens: tuple[Tokens, ...]
    names: tuple[str, ...]
    place: tuple[tuple[int, int], ...]
    domains: tuple[str, ...]
    skipped: Mapping[str, Sequence[str]]

    def spread(self, values: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """Values (row, ...) of some rows as (domain, prompt, ...), NaN elsewhere."""
        shape = (len(self.domains), 1 + max(i for _, i in self.place), *values.shape[1:])
        out = np.full(shape, np.nan)
        for value, row in zip(values, rows, strict=True):
            out[self.place[row]] = value
        return out


def chosen_texts(
    model: Model, domains: Mapping[str, Sequence[str | Document]], most: int, length: int, seed: int
) -> Texts:
    """The first `length` tokens of up to `most` documents of each domain, in a drawn order.

    Raises InputError for fewer than two domains or more tokens than the model takes, RefusedError for a model without a
    tokenizer and for a domain with fewer than 10 texts of that length.
    """
    if len(domains) < 2:
        raise InputError(f"{len(domains)} domains", "at least two", "Name another one")
    if model.tokenizer is None:
        raise RefusedError(f"{model.name}, which has no tokenizer", "a model that reads text", "Use another model")
    if length > model.sizes.n_ctx:
        raise InputError(f"length={length}", f"at most n_ctx = {model.sizes.n_ctx}", "Take shorter texts")
    chosen = {name: _cut(model, name, documents, most, length, seed) for name, documents in domains.items()}
    rows = [
        (kept[i][1], kept[i][0], (domain, i))
        for i in range(max(len(kept) for kept, _ in chosen.values()))
        for domain, (kept, _) in enumerate(chosen.values())
        if i < len(kept)
    ]
    skipped = {name: short for name, (_, short) in chosen.items()}
    tokens, sources, place = zip(*rows, strict=True)
    return Texts(tokens, sources, place, tuple(chosen), skipped)


def _cut(
    model: Model, name: str, documents: Sequence[str | Document], most: int, length: int, seed: int
) -> tuple[list[tuple[str, Tokens]], list[str]]:
    """Names and tokens of the documents that are taken, and names of those that are too short."""
    front = model.vocabulary.prefix
    wanted = length - len(front)
    kept: list[tuple[str, Tokens]] = []
    short: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(documents)).tolist():
        given = documents[index]
        document = given if isinstance(given, Document) else Document(f"{name}-{index}", given)
        ids = model.tokenizer.encode(document.text, add_special_tokens=False)[:wanted]
        if len(ids) < wanted:
            short.append(document.name)
        elif len(kept) < most:
            kept.append((document.name, tokenise(model, Prompt.ids([*front, *ids]))))
    if len(kept) < MIN_TEXTS:
        raise RefusedError(
            f"{len(kept)} texts of {length} tokens in {name} ({len(short)} were shorter)",
            f"at least {MIN_TEXTS} for a contrast",
            "Add texts, or take a smaller length",
        )
    return kept, sorted(short)
