"""Is what a probe no longer reads gone? Swap a word's first piece, and patch the last token's state at one depth.

Where moved(d) is near 0, the last token's state at d does not yet matter: later layers still read the piece from its
own position. Near 1, all that the prediction takes from the piece is in that one state. It is 0 at depth 0, where the
two states are equal, and 1 at the last depth, by construction; what is measured is where it rises.

Together with accuracy by depth: where a probe at offset -1 has lost the piece and moved(d) is high, the piece's effect
is carried in a form that this probe does not read. It cannot show that the state holds "the word", nor that nothing is
lost.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
import xarray as xr

from probes.erasure.readout import identified
from probes.erasure.trained.states import Pieces
from probes.erasure.trained.trainer import parts_of
from probes.erasure.trained.words import multi_token_words
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.corpora import Corpus
from workbench.errors import InputError
from workbench.figures import stretches
from workbench.intervene import Patch
from workbench.models.hooks import RESID_POST
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Prompt, Tokens
from workbench.observation import observe
from workbench.observation.recording import record_all
from workbench.statistics import ratio_interval
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "TokenErasureSwap", "jensen_shannon", "moved_figure", "moved_shares", "pairs_of"]

_CONTEXT = 48  # tokens in front of the word's last one
_SHARES = (1, 2, 3, 4, 6, 9, 12, 16, 20, 25, 30)  # of 30 layers


class TokenErasureSwap(Study, name="token-erasure-swap", title="Token erasure: is it gone?"):
    """How much of a word's first piece acts through the last token's state, by depth.

    Definition: The first piece of a two-token word is swapped for the first token of another such word; the two prompts
    end in the word's last token and differ in the token before it alone. The last token's state at depth d of the
    swapped prompt is written into the clean one, and the pass goes on. moved(d) = JS(clean, patched at d) / JS(clean,
    swapped), over next-token distributions behind the word (JS: Jensen-Shannon divergence, nats).

    Limits: 1 at the last depth by construction. It shows where the piece's effect on the next token comes to be carried
    by the last token's state; not in which form, not that the state holds the word, and not that nothing was lost.
    Interventions of a run act in all three prompts; one on a position names the same place in each.

    Source: ours; activation patching as in Meng et al. 2022, arXiv 2202.05262

    Returns: `moved` (depth) with `_low` and `_high` (bootstrap over the documents that the words come from, whose words
    are not independent; their number is in attrs), and `moved_of` (prompt, depth) of every word with its text in
    `word` (prompt); after every eighth word, the last complete.
    """

    prompted: ClassVar[bool] = False

    words: Annotated[int, Range(2, 500), "words to swap"] = 24
    seed: Annotated[int, Range(0, 10_000), "of the choice of words"] = 0

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Over words from the held-out part of the interpreter's documentation."""
        yield from self.over(model, None, progress=progress)

    def over(
        self, model: Model, corpus: Corpus | dict[str, Pieces] | None, *, progress: Progress | None = None
    ) -> Iterator[xr.Dataset]:
        """Over words from the held-out part of a corpus (None: the interpreter's documentation)."""
        pieces = parts_of(model, corpus, self.seed)[1]["test"]
        n_layers = model.sizes.n_layers
        depths = sorted({max(1, round(share * n_layers / 30)) for share in _SHARES})
        pairs, rows = pairs_of(pieces, self.words, self.seed), []
        for index, (clean, swapped, _) in enumerate(pairs):
            rows.append(moved_shares(model, clean, swapped, depths))
            if progress is not None:
                progress((index + 1) / len(pairs))
            if (index + 1) % 8 == 0 or index + 1 == len(pairs):
                yield _result(model, pairs[: index + 1], np.array(rows), depths)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """As measured on the default model: fifty short passes for each word."""
        return 50.0 * self.words


def jensen_shannon(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence of log-probabilities `[..., d_vocab]`, nats, 0 to log 2."""
    middle = torch.logaddexp(a, b) - np.log(2)
    return 0.5 * ((a.exp() * (a - middle)).sum(-1) + (b.exp() * (b - middle)).sum(-1))


def pairs_of(pieces: Pieces, words: int, seed: int) -> list[tuple[list[int], list[int], int]]:
    """(clean ids, swapped ids, document) of random words of two tokens; both end in the word's last token."""
    random = np.random.default_rng(seed)
    base, found = 0, []
    for tokens in pieces.tokens:
        for word in multi_token_words(tokens.spans, pieces.first):
            if word.k == 2 and word.start > pieces.first:
                found.append((tokens, word, int(pieces.document[base])))
        base += len(tokens)
    if len(found) < 2:
        raise InputError(f"{len(found)} words of two tokens", "at least 2", "Use another corpus")
    firsts = np.array([tokens.ids[word.start] for tokens, word, _ in found])
    pairs = []
    for index in random.permutation(len(found))[:words]:
        tokens, word, document = found[index]
        others = firsts[firsts != firsts[index]]
        if not len(others):
            continue
        front = list(tokens.ids[: pieces.first])
        text = list(tokens.ids[max(pieces.first, word.end - _CONTEXT) : word.end + 1])
        swapped = [*text[:-2], int(random.choice(others)), text[-1]]
        pairs.append((front + text, front + swapped, document))
    return pairs


def moved_shares(model: Model, clean: Sequence[int], swapped: Sequence[int], depths: Sequence[int]) -> np.ndarray:
    """moved(d) at every depth (1 is the output of block 0), `[depth]`; NaN where the swap itself does nothing."""
    prompts = [Prompt.ids(clean), Prompt.ids(swapped)]
    layers = [depth - 1 for depth in depths]
    _, source = record_all(model, prompts, (RESID_POST,), layers)
    patches = [
        Patch(RESID_POST, layer, source, positions=(-1,), rows=(row,)) for row, layer in enumerate(layers, start=2)
    ]
    seen = observe(model, [*prompts, *[prompts[0]] * len(layers)], interventions=patches)
    ends = torch.cat(seen.log_probs)
    whole = jensen_shannon(ends[0], ends[1])
    shares = jensen_shannon(ends[0], ends[2:]) / whole
    return shares.numpy() if whole > 1e-4 else np.full(len(depths), np.nan)


def _result(model: Model, pairs: Sequence[tuple[Any, ...]], rows: np.ndarray, depths: Sequence[int]) -> xr.Dataset:
    known = (~np.isnan(rows)).sum(0)
    mean = np.where(known > 0, np.nansum(rows, 0) / np.maximum(known, 1), np.nan)
    n_documents, (low, high) = _over_documents(rows, [document for *_, document in pairs])
    named = [model.vocabulary.text(clean[-2:]) for clean, _, _ in pairs]
    other = [model.vocabulary.string(swapped[-2]) for _, swapped, _ in pairs]
    spec = ("share of the swap's effect", (0, None), "prediction moved by the last token's state")
    result = dataset(
        coords={"depth": list(depths)},
        moved=("depth", mean, *spec),
        moved_low=("depth", low, *spec),
        moved_high=("depth", high, *spec),
        moved_of=("prompt depth", rows, *spec),
        word=("prompt", np.array(named, dtype=object), "text", None, "word"),
        other=("prompt", np.array(other, dtype=object), "text", None, "what its first piece was swapped for"),
    )
    half = [depth for depth, value in zip(depths, mean, strict=True) if value >= 0.5]
    where = f"at measured depths {stretches(half)}" if half else "at no depth measured"
    return identified(result, model).assign_attrs(
        words=int(known.max(initial=0)),
        documents=n_documents,
        summary="Half or more of a word's first piece's effect on the prediction is carried by the last token's state "
        f"{where}.",
    )


def _over_documents(rows: np.ndarray, documents: Sequence[int]) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    """Documents that have a word, and the interval of the mean over words `[depth]` that draws documents anew.

    rows: `[word, depth]`; NaN is missing.
    """
    names, at = np.unique(documents, return_inverse=True)
    sums, counts = np.zeros((2, len(names), rows.shape[1]))
    np.add.at(sums, at, np.nan_to_num(rows))
    np.add.at(counts, at, ~np.isnan(rows))
    n = int((counts > 0).sum(0).max(initial=0))
    return n, ratio_interval(sums, np.where(counts > 0, counts, np.nan), bounds=(0, None))


@reads("token-erasure-swap")
def moved_figure(result: xr.Dataset) -> "go.Figure":
    """Share of the swap's effect that one state of the last token carries, by depth."""
    from workbench.figures import series

    return series(
        result,
        "moved",
        "depth",
        title=f"How much of a first piece acts through the last token's state "
        f"({result.attrs['words']} words of {counted(result.attrs['documents'], 'document')})",
    )


VIEW = View(
    TokenErasureSwap,
    question="At which depth does a word's last token carry what its first piece does?",
    asks=(Ask("words", "Swap the first pieces of", unit="words"),),
    figures=(moved_figure,),
)
