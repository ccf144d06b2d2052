"""What sinks, drains and peaks of a prompt become without BOS, and with position 0 out of sight.

Three passes: the prompt as given; with its BOS token dropped (or added, where it had none); and as given with key 0
taken out of every later query's sight before the softmax, in all layers. In the last one, position 1 is the first
visible one and takes the first one's place. What belongs to BOS goes with it; what belongs to the place stays.

Source: Gu et al. 2024, arXiv 2410.10781 (sinks with and without BOS, on the first place); the comparison is ours.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.attention.sinks import attention_sinks
from workbench import Entry, InputError, Param, Prompt, dataset, tokenise
from workbench.intervene import Knockout

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.models.model import Model
    from workbench.models.prompt import Tokens

__all__ = ["ENTRY", "drain_figure", "peak_figure", "sink_conditions", "sink_figure"]

_SHORTEST = 4  # tokens, so that something is left without the first one and with the next one masked
_KEPT = {"sink_rate": "layer", "layer_drain": "layer", "peak_ratio": "depth", "peak_pos": "depth"}


def sink_conditions(
    model: "Model",
    tokens: "Tokens",
    *,
    epsilon: float = 0.3,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Sink rate and drain by layer, peak by depth, for each condition (group); yields after each pass.

    peak_pos counts positions of the condition's own tokens. Raises InputError for a prompt of fewer than four tokens.
    """
    if tokens is None or len(tokens) < _SHORTEST:
        got = "no prompt" if tokens is None else f"a prompt of {len(tokens)} tokens"
        raise InputError(got, f"at least {_SHORTEST} tokens", "Type a longer text")
    conditions = list(_conditions(model, tokens))
    done: list[xr.Dataset] = []
    for index, (_, prompt, interventions, mask_first) in enumerate(conditions):
        tell = _share(progress, index, len(conditions))
        result = attention_sinks.run(
            model, prompt, interventions=interventions, progress=tell, epsilon=epsilon, mask_first=mask_first
        )
        done.append(result)
        names = [name for name, *_ in conditions[: len(done)]]
        yield _joined(names, done, len(tokens), epsilon)


def _conditions(model: "Model", tokens: "Tokens") -> Iterator[tuple[str, Any, tuple, bool]]:
    """Name, prompt, interventions, and whether position 1 takes the first one's place."""
    ids, layers = tokens.ids, tuple(range(model.sizes.n_layers))
    hidden = Knockout(tuple(range(1, len(ids))), (0,), layers)
    bos = getattr(model.tokenizer, "bos_token_id", None)
    yield "as given" + (", with BOS" if tokens.bos else ", no BOS"), tokens, (), False
    if tokens.bos:
        yield "BOS dropped", tokenise(model, Prompt.ids(ids[1:])), (), False
    elif bos is not None:
        yield "BOS added", tokenise(model, Prompt.ids((bos, *ids))), (), False
    yield "position 0 masked", tokens, (hidden,), True


def _share(progress: Callable[[float], None] | None, index: int, n: int) -> Callable[[float], None] | None:
    return None if progress is None else lambda share: progress((index + share) / n)


def _joined(names: list[str], done: list[xr.Dataset], n_tokens: int, epsilon: float) -> xr.Dataset:
    variables = {}
    for name, dim in _KEPT.items():
        attrs = done[0][name].attrs
        title = attrs["long_name"].replace("position 0", "the first position")
        values = np.stack([result[name].values for result in done])
        bounds = tuple(None if np.isinf(attrs[end]) else attrs[end] for end in ("valid_min", "valid_max"))
        variables[name] = (f"group {dim}", values, attrs["units"], bounds, title)
    rates = np.array([attention_sinks.mean_known(result["sink_rate"].values, 0) for result in done])
    result = dataset(
        coords={"group": names},
        **variables,
        model_sink_rate=("group", rates, "share of heads", (0, 1), "heads that sink on the first position"),
    )
    convention = f"T = {n_tokens} as given, first visible position, epsilon = {epsilon:g}"
    said = ", ".join(f"{rate:.0%} {name}" for name, rate in zip(names, rates, strict=True))
    summary = f"Heads that sink on the first visible position: {said}."
    return result.assign_attrs(convention=convention, summary=summary, provenance=done[0].attrs["provenance"])


def sink_figure(result: xr.Dataset) -> "go.Figure":
    """Share of heads that sink by layer, one line for each condition."""
    from workbench.figures import series

    title = f"Heads that sink ({result.attrs['convention']})"
    return series(result, "sink_rate", "layer", by="group", title=title)


def peak_figure(result: xr.Dataset) -> "go.Figure":
    """Largest residual norm over the median by depth, one line for each condition."""
    from workbench.figures import series

    title = f"Residual peak ({result.attrs['convention']})"
    return series(result, "peak_ratio", "depth", by="group", title=title, log_y=True)


def drain_figure(result: xr.Dataset) -> "go.Figure":
    """Value drain of the median head by layer, one line for each condition."""
    from workbench.figures import series

    title = f"Value drain, median head ({result.attrs['convention']})"
    return series(result, "layer_drain", "layer", by="group", title=title)


ENTRY = Entry(
    name="sink-conditions",
    title="Sinks without BOS, and with position 0 masked",
    source="arXiv 2410.10781",
    definition=(
        "The numbers of attention-sinks in three passes: as given; BOS dropped (or added); key 0 hidden from all later "
        "queries in all layers, where position 1 takes the first one's place."
    ),
    limits=(
        "Dropping BOS shortens the prompt by one token, and alpha falls with length. Where positions are rotary, "
        "masking position 0 is the same as dropping it, and their lines coincide. One prompt: no interval."
    ),
    scope="study",
    study=sink_conditions,
    figures=(sink_figure, peak_figure, drain_figure),
    params=(Param("epsilon", float, 0.3, "alpha above which a head sinks", low=0.0, high=1.0),),
    requires=attention_sinks.ENTRY.requires,
)
run = ENTRY.run
