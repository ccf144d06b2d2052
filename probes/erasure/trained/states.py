"""States of the residual stream over a corpus, as a readout probe takes them: streamed, a few depths at a time.

Nothing is written to disk. A state is divided by its root mean square in the pass, so that half precision holds it on
any model, and kept as float16: 1.2 kB per token and depth at d_model 576.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import torch

from workbench.corpora import Corpus
from workbench.errors import InputError
from workbench.models.hooks import RESID_POST, RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.observation import Need, Site, keep, observe

__all__ = [
    "PIECE", "Pieces", "checked_depths", "collect", "cut", "first_text_position", "needs_of", "pieces_digest",
    "pieces_of", "unit_rms",
]  # fmt: skip

PIECE = 256  # tokens of a piece of text, BOS included
_AT_ONCE = 8  # pieces per pass: what is kept in float32 before it is made small


@dataclass(frozen=True, eq=False)
class Pieces:
    """Tokenised pieces of documents, laid end to end. All arrays are over tokens.

    first: where the text of a piece begins (1 behind a BOS token, else 0).
    """

    tokens: tuple[Tokens, ...] = field(repr=False)
    ids: np.ndarray = field(repr=False)
    pos: np.ndarray = field(repr=False)
    document: np.ndarray = field(repr=False)
    first: int

    def __len__(self) -> int:
        return len(self.ids)

    def targets(self, offset: int) -> tuple[np.ndarray, np.ndarray]:
        """Where a probe of an offset (0 or below) has something to name, and the token ids there.

        Returns (indices of tokens, ids `tok[t + offset]`): the target is a text token of the same piece.
        """
        at = np.flatnonzero(self.pos + offset >= self.first)
        return at, self.ids[at + offset]


def first_text_position(tokens: Tokens) -> int:
    """1 behind a BOS token, else 0."""
    return int(tokens.bos)


def pieces_of(model: Model, corpus: Corpus, length: int = PIECE) -> Pieces:
    """The documents of a corpus in pieces of at most `length` tokens, each behind what its tokenizer puts there (BOS).

    Pieces of fewer than three tokens are left out. Raises InputError for a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise InputError(f"{model.name}, which has no tokenizer", "a model that reads text", "Use another model")
    front = list(model.vocabulary.prefix)
    step = min(length, model.sizes.n_ctx) - len(front)
    found: list[tuple[int, list[int]]] = []
    for index, document in enumerate(corpus.documents):
        ids = model.tokenizer.encode(document.text, add_special_tokens=False)
        found += [(index, front + ids[i : i + step]) for i in range(0, len(ids), step)]
    return cut(model, [(index, ids) for index, ids in found if len(ids) >= 3])


def cut(model: Model, pieces: Sequence[tuple[int, Sequence[int]]]) -> Pieces:
    """Pieces from (document, token ids)."""
    if not pieces:
        raise InputError("a corpus without a piece of three tokens", "text", "Add text")
    tokens = tuple(tokenise(model, Prompt.ids([int(i) for i in ids])) for _, ids in pieces)
    lengths = [len(t) for t in tokens]
    return Pieces(
        tokens,
        np.concatenate([t.ids for t in tokens]).astype(np.int64),
        np.concatenate([np.arange(n) for n in lengths]),
        np.repeat([index for index, _ in pieces], lengths),
        first_text_position(tokens[0]),
    )


def unit_rms(resid: torch.Tensor, site: Site) -> torch.Tensor:
    """States divided by their root mean square, float32 `[batch, pos, d_model]`, no unit."""
    resid = resid.float()
    return resid / resid.pow(2).mean(-1, keepdim=True).clamp_min(1e-12).sqrt()


def needs_of(depths: Sequence[int], raw: bool = False) -> dict[int, Need]:
    """One need for each depth (0 the embedding, d the output of block d-1). raw: states as they are."""
    hook = lambda depth: (RESID_PRE, 0) if depth == 0 else (RESID_POST, depth - 1)
    shrink = keep if raw else unit_rms
    return {depth: Need((hook(depth)[0],), shrink, dims="pos d_model", layers=(hook(depth)[1],)) for depth in depths}


def collect(
    model: Model,
    pieces: Pieces,
    depths: Sequence[int],
    progress: Callable[[float], None] | None = None,
    raw: bool = False,
) -> dict[int, torch.Tensor]:
    """States of all tokens at some depths, float16 `[token, d_model]`, divided by their root mean square.

    Runs only the blocks below the deepest. progress: called with the share done; it may raise to cancel. raw: states as
    they are, in float32, which half precision may not hold.
    """
    needs, dtype = needs_of(depths, raw), torch.float32 if raw else torch.float16
    kept = {depth: torch.empty(len(pieces), model.sizes.d_model, dtype=dtype) for depth in depths}
    filled = 0
    for start in range(0, len(pieces.tokens), _AT_ONCE):
        batch = pieces.tokens[start : start + _AT_ONCE]
        seen = observe(model, batch, list(needs.values()), positions="none", stop=max(1, *depths))
        lengths = [len(t) for t in batch]
        for depth, need in needs.items():
            rows = torch.cat([seen[need][0, i, :n] for i, n in enumerate(lengths)])
            kept[depth][filled : filled + sum(lengths)] = rows.to(dtype)
        filled += sum(lengths)
        if progress is not None:
            progress(filled / len(pieces))
    return kept


def checked_depths(depths: Sequence[int], offsets: Sequence[int], model: Model) -> tuple[int, ...]:
    """Depths in order, each once. InputError for depths that the model has not, and for offsets that no probe is of."""
    bad = [d for d in depths if not 0 <= d <= model.sizes.n_layers]
    if bad:
        raise InputError(f"depth {bad[0]}", f"depths 0 to {model.sizes.n_layers} on {model.name}", "Choose such depths")
    bad = [o for o in offsets if not -8 <= o <= 0]
    if bad or not offsets:
        raise InputError(f"offsets {list(offsets)}", "offsets from 0 down to -8", "Choose such offsets")
    return tuple(sorted(set(depths)))


def pieces_digest(parts: dict[str, Pieces]) -> str:
    """64 hex digits of pieces by part, as a card names a corpus that is given so."""
    return sha256(b"".join(name.encode() + part.ids.tobytes() for name, part in sorted(parts.items()))).hexdigest()
