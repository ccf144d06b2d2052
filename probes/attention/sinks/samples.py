"""Samples of exactly so many tokens: natural text, random tokens, and one token over and over."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from workbench.corpora import Document, python_domains
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise

__all__ = ["natural_samples", "random_samples", "repeated_samples"]


def natural_samples(
    model: Model, start: list[int], samples: int, length: int, text: str, random: np.random.Generator
) -> Iterator[Tokens]:
    """`start` and the first tokens of documents of a bundled domain, in a drawn order; `length` tokens each."""
    if model.tokenizer is None:
        return
    documents = python_domains()[text].documents
    kept: list[tuple[Document, list[int]]] = []
    skipped: list[str] = []
    for index in random.permutation(len(documents)):
        ids = model.tokenizer.encode(documents[index].text, add_special_tokens=False)[: length - len(start)]
        if len(ids) + len(start) < length:
            skipped.append(documents[index].name)
        elif len(kept) < samples:
            kept.append((documents[index], ids))
    note = f"{len(skipped)} texts shorter than {length} tokens were skipped: {', '.join(sorted(skipped))}"
    for row, (document, ids) in enumerate(kept):
        notes = (str(document), *((note,) if skipped and row == 0 else ()))
        yield replace(tokenise(model, Prompt.ids([*start, *ids])), notes=notes)


def random_samples(
    model: Model, start: list[int], samples: int, length: int, text: str, random: np.random.Generator
) -> Iterator[Tokens]:
    """`start` and tokens drawn uniformly from all but special ones."""
    for row in random.choice(_ordinary(model), (samples, length - len(start))):
        yield tokenise(model, Prompt.ids([*start, *row.tolist()]))


def repeated_samples(
    model: Model, start: list[int], samples: int, length: int, text: str, random: np.random.Generator
) -> Iterator[Tokens]:
    """`start` and one token over and over, another one in each sample."""
    for token in random.choice(_ordinary(model), samples):
        yield tokenise(model, Prompt.ids([*start, *[int(token)] * (length - len(start))]))


def _ordinary(model: Model) -> np.ndarray:
    """Ids of all tokens but special ones."""
    special = set() if model.tokenizer is None else set(model.tokenizer.all_special_ids)
    n = model.sizes.d_vocab if model.tokenizer is None else min(model.sizes.d_vocab, len(model.tokenizer))
    return np.array([i for i in range(n) if i not in special])
