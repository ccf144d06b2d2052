"""Attention knockout: in which layers a token reads from which part of the prompt.

In a window of layers around each layer, the query may not attend to a segment of keys (their scores are hidden before
the softmax, the rest of the row is renormalised), and the metric changes: `effect = metric(knocked out) - metric(as
it is)`. Segments: the first token, the subject, and the rest without the query itself; with one line per segment, the
profile shows where information moves. A query never loses its only key. Windows are cut off at the ends.

Hidden keys may be reached in two steps through positions between; a flat line does not mean that nothing is read.

Source: Geva et al. 2023, arXiv 2304.14767; Zhang et al. 2025, arXiv 2411.18620 (windows of 9 layers).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr

from probes.circuits.prompt_pairs import segment
from workbench.analysis.legacy import Entry, Param
from workbench.analysis.results import dataset
from workbench.errors import InputError
from workbench.intervene import Knockout
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, READOUT, ROWS
from workbench.observation.metrics import KINDS, Metric, make_metric
from workbench.observation.sweeps import base_run, sweep

__all__ = ["ENTRY", "knockout", "profile_figure", "run", "segments_of"]


def segments_of(tokens: Tokens, query: int, subject: str = "") -> dict[str, tuple[int, ...]]:
    """Key positions in front of a query, by segment; empty ones are left out."""
    inside = segment(tokens, subject) if subject else ()
    parts = {
        "first token": (0,),
        "subject": tuple(p for p in inside if 0 < p < query),
        "rest": tuple(p for p in range(1, query) if p not in inside),
    }
    return {name: keys for name, keys in parts.items() if keys}


def knockout(
    model: Model,
    tokens: Tokens,
    metric: Metric,
    segments: dict[str, tuple[int, ...]],
    *,
    query: int = -1,
    window: int = 9,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Hide each segment from a query in a window around every layer; yields after each batch.

    window: layers, centred (an even one reaches further down). Returns `effect` (segment, layer) and `clean`, the
    metric as it is.
    """
    query %= len(tokens)
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
            summary=_summary(result),
            metric=metric.describe(model.vocabulary),
            window=window,
            query=query,
            keys="; ".join(f"{name}: {','.join(map(str, keys))}" for name, keys in segments.items()),
        )


def _summary(result: xr.Dataset) -> str:
    """Where hiding each segment does most."""
    effect, units = result["effect"], result["effect"].attrs["units"]
    peaks = []
    for name, row in zip(result["segment"].values, effect.values, strict=True):
        if np.isfinite(row).any():
            layer = int(np.nanargmax(np.abs(row)))
            peaks.append(f"{name} {row[layer]:+.2f} around layer {layer}")
    return f"{float(result['clean']):.2f} {units} as it is. Most is done by hiding: {'; '.join(peaks)}."


def study(
    model: Model,
    tokens: Any,
    *,
    subject: str = "",
    query: int = -1,
    window: int = 9,
    metric: str = "log-probability",
    target: str = "",
    against: str = "",
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """The profile of one query on the current prompt."""
    if tokens is None:
        raise InputError("attention-knockout without a prompt", "a prompt", "Give one")
    base = base_run(model, tokens)
    chosen = make_metric(model, tokens, base.logits(model), kind=metric, target=target, against=against)
    parts = segments_of(tokens, query % len(tokens), subject)
    yield from knockout(model, tokens, chosen, parts, query=query, window=window, progress=progress)


def profile_figure(result: xr.Dataset):
    """One line per segment, by the window's centre."""
    from workbench.figures import series

    title = f"Hiding keys from token {result.attrs['query']}: {result.attrs['metric']}"
    return series(result, "effect", "layer", by="segment", title=title)


ENTRY = Entry(
    name="attention-knockout",
    title="Attention knockout",
    source="arXiv 2304.14767, 2411.18620",
    limits="Information may take a detour through positions in between, so a flat line does not mean nothing is read; "
    "hiding the first token takes an attention sink away, which hurts whatever it holds.",
    definition="effect = metric with the query blind to a segment in a window of layers - metric as it is.",
    version=2,
    scope="study",
    study=study,
    figures=(profile_figure,),
    params=(
        Param(
            "subject", str, "", "part of the prompt that is a segment of its own: its text, or positions such as 3,4"
        ),
        Param("query", int, -1, "position that is made blind; -1 is the last"),
        Param("window", int, 9, "layers in a window", low=1, high=99),
        Param("metric", str, "log-probability", "what is measured", choices=KINDS),
        Param("target", str, "", "token whose prediction is measured; empty: the model's top token"),
        Param("against", str, "", "token it is compared with"),
    ),
    requires=(READOUT, PADDING, ROWS),
    cost=lambda sizes, n_tokens, **_: 1.5 * sizes.n_layers,
)

run = ENTRY.run
