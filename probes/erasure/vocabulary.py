"""The strings that psi makes out of a corpus, and how far they are words that the tokenizer cuts.

Precision and recall are low even where they are well above both nulls: this is not "the vocabulary".
"""

from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from probes.erasure.psi import psi_of_spans, segment
from probes.erasure.readout import Kind, chosen_depths, identified, plan, probes_digest, read
from probes.erasure.trained.artifact import ReadoutProbes
from probes.erasure.trained.states import Pieces, collect
from probes.erasure.trained.trainer import parts_of
from probes.erasure.trained.words import multi_token_words
from workbench.analysis.kinds import Study
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.corpora import Corpus
from workbench.errors import InputError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.vocabulary import show_bytes
from workbench.statistics import percentile_interval, ratio_interval
from workbench.words import counted

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["VIEW", "Text", "TokenErasureVocabulary", "scores", "strings_figure", "table", "texts_of"]

SCORES = ("precision", "recall", "auc")
_LAYOUTS, _SHUFFLES, _DRAWS = 20, 3, 200
_LETTERS = 28  # of a string that stands beside its bar; a rule of dashes would take half the figure


class TokenErasureVocabulary(Study, name="token-erasure-vocabulary", title="Token erasure: the strings of a corpus"):
    """The strings that psi makes of text, beside nulls.

    Definition: Every piece of held-out text is segmented by psi; per string of several tokens its count and mean psi.
    Precision: share of such segments that are exactly a word of several tokens; recall: share of such words that are
    exactly a segment; AUC: chance that psi of a two-token word exceeds psi of another two-token span. Nulls: the same
    segment lengths laid out in random order (AUC: 0.5); erasures dealt out anew among the tokens.

    Limits: Most strings occur once, so ranks are noise at the level of 0.05, and many are pieces of longer words.
    Precision is low: psi orders spans, it does not find words. Compare with the nulls, never with another corpus or
    model.

    Source: Feucht et al. 2024, arXiv 2406.20086; nulls and AUC are ours

    Returns: `score` (component) with `_low`, `_high`, `_null` and `_shuffled`; per string, by falling mean psi, `text`,
    `count`, `mean_psi`, `is_word` (row), at most `rows` of them.
    """

    prompted: ClassVar[bool] = False
    editable: ClassVar[bool] = False  # its probes were trained on the model as it is

    early: Annotated[int | None, Range(0), "early depth; default by the rule"] = None
    late: Annotated[int | None, Range(1), "late depth; default by the rule"] = None
    kind: Kind = "factored"
    rows: Annotated[int, Range(1, 100_000), "strings kept"] = 1000
    seed: Annotated[int, Range(0, 10_000), "of the split and of the nulls"] = 0

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Segment the held-out part of the interpreter's documentation."""
        yield from self.over(model, None, progress=progress)

    def over(
        self,
        model: Model,
        corpus: Corpus | dict[str, Pieces] | None,
        *,
        probes: ReadoutProbes | None = None,
        progress: Progress | None = None,
    ) -> Iterator[xr.Dataset]:
        """Segment the held-out part of a corpus (None: the interpreter's documentation), in one Dataset.

        probes: None for those of that kind in the user's cache. Raises UnavailableError without probes, InputError for
        text without a word of several tokens.
        """
        if probes is None:
            probes, early, late = plan(model.identity.key, model.name, self.early, self.late, self.kind)
        else:
            early, late = chosen_depths(probes, self.early, self.late)
        record, parts = parts_of(model, corpus, self.seed)
        texts = texts_of(model, probes, parts["test"], early, late, progress)
        if not any(text.words for text in texts):
            raise InputError(f"{record['name']} without a word of several tokens", "running text", "Use another corpus")
        result = _result(record, probes, texts, scores(texts, self.seed), self.rows)
        yield identified(result, model).assign_attrs(early=early, late=late)

    def artifact(self, model: Model) -> str | None:
        """A hash of the probes and of their card."""
        return probes_digest(model, self.early, self.late, self.kind)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Some hundred pieces of 256 tokens."""
        return 100 * 256 / SHORT


@dataclass(frozen=True, eq=False)
class Text:
    """One piece of text: erasures `[token, 3]`, the bytes of its tokens, its document, its multi-token words (start,
    end)."""

    delta: np.ndarray = field(repr=False)
    pieces: tuple[bytes, ...] = field(repr=False)
    document: int
    words: frozenset[tuple[int, int]] = field(repr=False)


def texts_of(
    model: Model,
    probes: ReadoutProbes,
    pieces: Pieces,
    early: int,
    late: int,
    progress: Progress | None,
) -> list[Text]:
    """Read pieces of text at two depths; positions count from the first text token."""
    states = collect(model, pieces, (early, late), progress, raw=probes.reads_raw)
    reading = read(probes, model.readout.W_U, states, pieces.ids, pieces.pos, pieces.first)
    delta, base, found = reading.delta(early, late).astype(np.float64), 0, []
    for tokens in pieces.tokens:
        first, n = pieces.first, len(tokens)
        raw = tuple(model.vocabulary.bytes_of(token_id) for token_id in tokens.ids[first:])
        words = frozenset((word.start - first, word.end - first) for word in multi_token_words(tokens.spans, first))
        found.append(Text(delta[base + first : base + n], raw, int(pieces.document[base]), words))
        base += n
    return found


def scores(texts: list[Text], seed: int) -> dict[str, np.ndarray]:
    """`value`, `low`, `high` (95 % over documents), `null` and `shuffled` of precision, recall and auc."""
    random = np.random.default_rng(seed)
    segments = [segment(text.delta)[:2] for text in texts]
    counts = _matches(texts, segments)
    laid = [_matches(texts, [_laid_out(s, e, random) for s, e in segments]).sum(0) for _ in range(_LAYOUTS)]
    dealt = [[_dealt(text, random) for text in texts] for _ in range(_SHUFFLES)]
    again = [_matches(some, [segment(text.delta)[:2] for text in some]).sum(0) for some in dealt]
    by_document = np.stack(
        [counts[[t.document == d for t in texts]].sum(0) for d in sorted({t.document for t in texts})]
    )
    share_of = lambda column: ratio_interval(by_document[:, 0], by_document[:, column], bounds=(0, 1))
    intervals: list[tuple[Any, Any]] = [share_of(column) for column in (1, 2)]
    pairs = [_pairs(text) for text in texts]
    intervals.append(_auc_interval(pairs, [text.document for text in texts], random))
    share = lambda total: [_ratio(total[0], total[1]), _ratio(total[0], total[2])]
    return {
        "value": np.array([*share(counts.sum(0)), _auc(pairs)]),
        "low": np.array([low for low, _ in intervals]),
        "high": np.array([high for _, high in intervals]),
        "null": np.array([*np.mean([share(total) for total in laid], axis=0), 0.5]),
        "shuffled": np.array(
            [
                *np.mean([share(total) for total in again], axis=0),
                np.mean([_auc([_pairs(t) for t in s]) for s in dealt]),
            ]
        ),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _matches(texts: list[Text], segments: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """For every text: segments that are words, segments of several tokens, words."""
    rows = []
    for text, (starts, ends) in zip(texts, segments, strict=True):
        several = {(int(a), int(b)) for a, b in zip(starts, ends, strict=True) if b > a}
        rows.append((len(several & text.words), len(several), len(text.words)))
    return np.array(rows, dtype=np.float64)


def _laid_out(starts: np.ndarray, ends: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same lengths in random order."""
    lengths = random.permutation(ends - starts + 1)
    after = np.cumsum(lengths)
    return after - lengths, after - 1


def _dealt(text: Text, random: np.random.Generator) -> Text:
    """The same erasures at other tokens; the first two keep theirs, which lack an offset."""
    order = np.concatenate([np.arange(2), 2 + random.permutation(max(0, len(text.delta) - 2))])[: len(text.delta)]
    return Text(text.delta[order], text.pieces, text.document, text.words)


def _pairs(text: Text) -> tuple[np.ndarray, np.ndarray]:
    """psi of all two-token spans, and which are words."""
    starts = np.arange(max(0, len(text.delta) - 1))
    is_word = np.array([(int(a), int(a) + 1) in text.words for a in starts], dtype=bool)
    return psi_of_spans(text.delta, starts, starts + 1), is_word


def _auc(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    psi, is_word = (np.concatenate(column) for column in zip(*pairs, strict=True))
    n, m = is_word.sum(), (~is_word).sum()
    if not n or not m:
        return float("nan")
    return float((rankdata(psi)[is_word].sum() - n * (n + 1) / 2) / (n * m))


def _auc_interval(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], document: list[int], random: np.random.Generator
) -> tuple[float, float]:
    members = [[i for i, d in enumerate(document) if d == name] for name in sorted(set(document))]
    draws = []
    for _ in range(_DRAWS):
        picked = random.integers(0, len(members), len(members))
        draws.append(_auc([pairs[i] for k in picked for i in members[k]]))
    known = [value for value in draws if not np.isnan(value)]
    low, high = percentile_interval(known, len(members), bounds=(0, 1)) if known else (np.nan, np.nan)
    return float(low), float(high)


def _result(
    record: dict[str, Any], probes: ReadoutProbes, texts: list[Text], found: dict[str, np.ndarray], rows: int
) -> xr.Dataset:
    table = _table(texts)
    spec = ("share", (0, 1), "words against segments")
    names = {"": "value", "_low": "low", "_high": "high", "_null": "null", "_shuffled": "shuffled"}
    shown = table[:rows]
    result = dataset(
        coords={"component": list(SCORES)},
        **{f"score{ending}": ("component", found[key], *spec) for ending, key in names.items()},
        text=("row", np.array([text for text, *_ in shown], dtype=object), "text", None, "string of the segment"),
        count=("row", np.array([n for _, n, _, _ in shown]), "segments", (0, None), "how often it is a segment"),
        mean_psi=("row", np.array([psi for _, _, psi, _ in shown]), "psi", (-1, 1), "mean psi"),
        is_word=("row", np.array([float(word) for *_, word in shown]), "flag", (0, 1), "exactly a multi-token word"),
    )
    return result.assign_attrs(
        probes=probes.digest, corpus=record["name"], corpus_digest=record["digest"],
        strings=len(table), summary=_summary(len(table), found),
    )  # fmt: skip


def _summary(strings: int, found: Mapping[str, np.ndarray]) -> str:
    """The three scores beside their nulls; what is not defined is left out, and so is the interval of too few
    documents."""
    (precision, recall, auc), null, said = found["value"], found["null"], []
    if np.isfinite(precision):
        beside = f" (null {null[0]:.3f})" if np.isfinite(null[0]) else ""
        said.append(f"precision {precision:.3f}{beside}")
    said.append(f"recall {recall:.2f} (null {null[1]:.2f})")
    if np.isfinite(auc):
        low, high = found["low"][2], found["high"][2]
        said.append(f"AUC {auc:.2f}" + (f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""))
    return f"{counted(strings, 'string')}; {', '.join(said)}."


def _table(texts: list[Text]) -> list[tuple[str, int, float, bool]]:
    """(string, count, mean psi, whether it was a word every time), by falling mean psi."""
    values, words = defaultdict(list), defaultdict(list)
    for text in texts:
        for start, end, psi in zip(*segment(text.delta), strict=True):
            if end > start:
                string = show_bytes(b"".join(text.pieces[start : end + 1]))
                values[string].append(float(psi))
                words[string].append((int(start), int(end)) in text.words)
    rows = [(string, len(psis), float(np.mean(psis)), all(words[string])) for string, psis in values.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0]))


def scores_figure(result: xr.Dataset) -> "go.Figure":
    """Precision, recall and AUC with intervals over documents; the tick is the null."""
    from workbench.figures import bars

    return bars(result, "score", "component", title="Segments against words; tick: null of equal lengths (AUC: 0.5)")


@reads("token-erasure-vocabulary")
def strings_figure(result: xr.Dataset) -> "go.Figure":
    """The strings of highest mean psi."""
    from workbench.figures import bars, show_token
    from workbench.figures.text import shorten

    part = result.isel(row=slice(0, 40))
    counts = part["count"].values.tolist()
    labels = [
        shorten(show_token(str(text), html=False), _LETTERS) + (f" ({n})" if n > 1 else "") + (" ✓" if word else "")
        for text, n, word in zip(part["text"].values, counts, part["is_word"].values, strict=True)
    ]
    return bars(
        part, "mean_psi", "row", labels=labels, title="Strings of highest mean psi (✓ a word of several tokens)"
    )


@reads("token-erasure-vocabulary")
def table(result: xr.Dataset) -> "pd.DataFrame":
    """One row per string, by falling mean psi: to sort, filter and export."""
    frame = result[["text", "count", "mean_psi", "is_word"]].to_dataframe().reset_index(drop=True)
    return frame.astype({"is_word": bool})


VIEW = View(
    TokenErasureVocabulary,
    question="Which strings does the model treat as one, and are they words?",
    asks=(
        Ask("rows", "List the", unit="strings that most look like one"),
        Ask("kind", "by probes of the kind"),
    ),
    figures=(strings_figure, scores_figure),
    tables=(table,),
)
