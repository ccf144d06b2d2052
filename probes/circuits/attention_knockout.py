"""Attention knockout: in which layers a token reads from which part of the prompt."""

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import xarray as xr

from probes.circuits.prompt_pairs import segment
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, OfPrompt, Position, Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.errors import InputError
from workbench.intervene import Knockout
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, READOUT, ROWS
from workbench.observation.metrics import KINDS, TARGET, Metric, followed_by, going_on, make_metric
from workbench.observation.sweeps import base_run, sweep
from workbench.words import ROUNDING, change, hundredths

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "AttentionKnockout", "knockout", "profile_figure", "segments_of"]


class AttentionKnockout(
    Study, name="attention-knockout", title="Attention knockout", requires=(READOUT, PADDING, ROWS)
):
    """In which layers a token reads from which part of the prompt.

    Definition: In a window of layers around each layer, the query may not attend to a segment of keys (their scores are
    hidden before the softmax, the rest of the row is renormalised), and the metric changes: effect = metric with the
    query blind to a segment in a window of layers - metric as it is. Segments: the first token, the subject, and the
    rest without the query itself; with one line per segment, the profile shows where information moves. A query never
    loses its only key. Windows are cut off at the ends; one of an even number of layers reaches further down.

    Limits: Information may take a detour in two steps through positions in between, so a flat line does not mean
    nothing is read; hiding the first token takes an attention sink away, which hurts whatever it holds.

    Source: Geva et al. 2023, arXiv 2304.14767; Zhang et al. 2025, arXiv 2411.18620 (windows of 9 layers).

    Returns: `effect` (segment, layer), by the window's centre, and `clean`, the metric as it is.
    """

    subject: Annotated[
        str, OfPrompt(), "part of the prompt that is a segment of its own: its text, or positions such as 3,4"
    ] = ""
    query: Annotated[int, Position(), "position that is made blind; -1 is the last"] = -1
    window: Annotated[int, Range(1, 99), "layers in a window"] = 9
    metric: Annotated[str, Choice(KINDS), "what is measured"] = "log-probability"
    target: Annotated[str, f"{TARGET}; empty: the model's top token"] = ""
    against: Annotated[str, "what it is compared with"] = ""

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The profile of one query on the current prompt."""
        query = tokens.place(self.query)
        parts = segments_of(tokens, query, self.subject)
        more = going_on(model, self.metric, self.target, self.against)
        tokens = followed_by(model, tokens, more)
        logits = base_run(model, tokens).logits(model, -1 - len(more))
        metric = make_metric(model, tokens, logits, kind=self.metric, target=self.target, against=self.against)
        yield from knockout(model, tokens, metric, parts, query=query, window=self.window, progress=progress)

    def fits(self, model: Model, tokens: Tokens) -> None:
        """A subject that is in the prompt, and targets that the model can say."""
        segments_of(tokens, self.query % len(tokens), self.subject)
        going_on(model, self.metric, self.target, self.against)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A fifth of a pass for every layer and segment: above the layer, and one token is asked about."""
        return 0.6 * sizes.n_layers


def segments_of(tokens: Tokens, query: int, subject: str) -> dict[str, tuple[int, ...]]:
    """Key positions in front of a query, by segment; empty ones are left out. InputError for a subject that is all
    behind the query, or the first token alone."""
    inside = segment(tokens, subject) if subject else ()
    seen = tuple(p for p in inside if 0 < p < query)
    if inside and not seen:
        raise InputError(
            f"the subject {subject!r} at {', '.join(map(str, inside))}, of which token {query} sees no more than the "
            "first token",
            "a subject between the first token and the query",
            "Choose a later query or another subject",
        )
    parts = {
        "first token": (0,),
        "subject": seen,
        "rest": tuple(p for p in range(1, query) if p not in inside),
    }
    return {name: keys for name, keys in parts.items() if keys}


def knockout(
    model: Model,
    tokens: Tokens,
    metric: Metric,
    segments: Mapping[str, tuple[int, ...]],
    *,
    query: int,
    window: int,
    progress: Progress | None = None,
) -> Iterator[xr.Dataset]:
    """Hide each segment from a query in a window around every layer; yields what `AttentionKnockout` does, after each
    batch."""
    query = tokens.place(query)
    if query == 0:
        raise InputError("query 0", "a query that sees more than itself", "Choose a later one")
    if not segments:
        raise InputError(f"no keys in front of query {query}", "a segment with keys", "Choose another query or subject")
    n, names = model.sizes.n_layers, list(segments)
    cells = [
        [Knockout((query,), keys, tuple(range(max(0, at - window // 2), min(n, at - window // 2 + window))))]
        for keys in segments.values()
        for at in range(n)
    ]
    base = base_run(model, tokens)
    own, values = base.value(model, metric), torch.full((len(cells),), torch.nan, dtype=torch.float64)
    for indices, found in sweep(model, base, cells, metric, progress=progress):
        values[indices] = found.double().cpu() - own
        result = dataset(
            base.observation,
            coords={"segment": names},
            effect=("segment layer", values.view(len(names), n).numpy(), metric.units, None, "effect of the knockout"),
            clean=("", own, metric.units, None, "metric as it is"),
        )
        yield result.assign_attrs(
            summary=metric.noted(_summary(result, metric.describe(model.vocabulary))),
            metric=metric.describe(model.vocabulary),
            **metric.tokens(model.vocabulary),
            window=window,
            query=query,
            keys="; ".join(f"{name}: {','.join(map(str, keys))}" for name, keys in segments.items()),
        )


def _summary(result: xr.Dataset, measured: str) -> str:
    """What is measured, and where hiding each segment does most."""
    effect, units = result["effect"], result["effect"].attrs["units"]
    peaks = []
    for name, row in zip(result["segment"].values, effect.values, strict=True):
        if np.isfinite(row).any():
            layer = int(np.nanargmax(np.abs(row)))
            where = f" around layer {layer}" if abs(row[layer]) >= ROUNDING else ""
            peaks.append(f"{name} {change(row[layer])}{where}")
    own = f"The {measured} is {hundredths(float(result['clean']))} {units} as it is."
    return f"{own} Most that hiding does: {'; '.join(peaks)}."


@reads("attention-knockout")
def profile_figure(result: xr.Dataset) -> "go.Figure":
    """One line per segment, by the window's centre."""
    from workbench.figures import series

    title = f"Hiding keys from token {result.attrs['query']}: {result.attrs['metric']}"
    return series(result, "effect", "layer", by="segment", title=title)


VIEW = View(
    AttentionKnockout,
    question="In which layers does a token read from which part of the prompt?",
    asks=(
        Ask("query", "Take from", pick="pos", empty="the last token"),
        Ask("subject", "the sight of", pick="segment", empty="the first token and of the rest"),
        Ask("window", "in windows of", unit="layers"),
    ),
    figures=(profile_figure,),
)
