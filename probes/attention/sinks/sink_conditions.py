"""What sinks, drains and peaks of a prompt become without BOS, and with position 0 out of sight."""

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import xarray as xr

from probes.attention.sinks.attention_sinks import AttentionSinks
from probes.attention.sinks.measures import mean_known
from workbench.analysis.kinds import Study
from workbench.analysis.pace import FIXED
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.errors import InputError, RefusedError
from workbench.intervene import Knockout, Where
from workbench.intervene.contradictions import is_void
from workbench.models.hooks import SCORES
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.models.selfcheck import PARTS, SOFTMAX, VISIBLE
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "SinkConditions", "drain_figure", "peak_figure", "sink_figure"]

_SHORTEST = 4  # tokens, so that something is left without the first one and with the next one masked
_KEPT = {"sink_rate": "layer", "layer_drain": "layer", "peak_ratio": "depth", "peak_pos": "depth"}


class SinkConditions(
    Study,
    name="sink-conditions",
    title="Sinks without BOS, and with position 0 masked",
    requires=(PARTS, SOFTMAX, VISIBLE),
):
    """What sinks, drains and peaks of a prompt become without BOS, and with position 0 out of sight.

    Definition: The numbers of attention-sinks in three passes: the prompt as given; with its BOS token dropped (or
    added, where it had none); and as given with key 0 hidden from all later queries, before the softmax, in all layers.
    In the last one, position 1 is the first visible one and takes the first one's place. What belongs to BOS goes with
    it; what belongs to the place stays.

    Limits: Dropping BOS shortens the prompt by one token, and alpha falls with length. Where positions are rotary,
    masking position 0 is the same as dropping it, and their lines coincide. One prompt: no interval. Interventions on
    positions keep their numbers where BOS is dropped or added, and so meet the neighbouring token there.

    Source: arXiv 2410.10781 (Gu et al. 2024: sinks with and without BOS, on the first place); the comparison is ours.

    Returns: Sink rate and drain by layer, peak by depth, for each condition: `sink_rate`, `layer_drain` (group, layer),
    `peak_ratio`, `peak_pos` (group, depth), `model_sink_rate` (group). peak_pos counts positions of the condition's own
    tokens.
    """

    epsilon: Annotated[float, Range(0.0, 1.0), "alpha above which a head sinks"] = 0.3

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A pass for each of three conditions, one after the other."""
        return 3 * (1.2 + FIXED / n_tokens)

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The conditions so far, after each pass. Raises InputError for a prompt of fewer than four tokens."""
        if tokens is None or len(tokens) < _SHORTEST:
            got = "no prompt" if tokens is None else f"a prompt of {counted(len(tokens), 'token')}"
            raise InputError(got, f"at least {_SHORTEST} tokens", "Type a longer text")
        conditions = list(_conditions(model, tokens))
        done: list[xr.Dataset] = []
        for index, (name, prompt, interventions, mask_first) in enumerate(conditions):
            analysis = AttentionSinks(epsilon=self.epsilon, mask_first=mask_first)
            tell = _share(progress, index, len(conditions))
            try:
                done.append(analysis.run(model, prompt, interventions=interventions, progress=tell))
            except InputError as error:
                if prompt is tokens or not model.interventions:
                    raise
                raise RefusedError(
                    f"the prompt with its {name} and {', '.join(map(str, model.interventions))} ({error.got})",
                    "interventions that the prompt without its BOS can carry, too",
                    "Count positions from the end (-1), or leave it out",
                ) from error
            names = [name for name, *_ in conditions[: len(done)]]
            result = _joined(names, done, len(tokens), self.epsilon)
            if model.vocabulary.front and not tokens.bos and not _fits_front(model, tokens):
                result.attrs["summary"] += (
                    f" Behind BOS it would be longer than the context, {model.sizes.n_ctx} tokens."
                )
            yield result


def _conditions(model: Model, tokens: Tokens) -> Iterator[tuple[str, Any, tuple[Any, ...], bool]]:
    """Name, prompt, interventions, and whether position 1 takes the first one's place."""
    ids, queries, front = tokens.ids, tuple(range(1, len(tokens))), model.vocabulary.front
    # where an intervention sets what attention leads to, no key is seen, and to hide one would contradict it
    seeing = tuple(n for n in range(model.sizes.n_layers) if not is_void(model, Where(SCORES, n, None, queries)))
    hidden = (Knockout(queries, (0,), seeing),) if seeing else ()
    yield "as given" + (", with BOS" if tokens.bos else ", no BOS"), tokens, (), False
    if tokens.bos:
        bare = ids[len(front) :] if ids[: len(front)] == front else ids[1:]
        yield "BOS dropped", tokenise(model, Prompt.ids(bare)), (), False
    elif front and _fits_front(model, tokens):
        yield "BOS added", tokenise(model, Prompt.ids((*front, *ids))), (), False
    yield "position 0 masked", tokens, hidden, True


def _fits_front(model: Model, tokens: Tokens) -> bool:
    """Whether BOS still fits in front of a prompt."""
    return len(model.vocabulary.front) + len(tokens) <= model.sizes.n_ctx


def _share(progress: Progress | None, index: int, n: int) -> Progress | None:
    return None if progress is None else lambda share: progress((index + share) / n)


def _joined(names: list[str], done: list[xr.Dataset], n_tokens: int, epsilon: float) -> xr.Dataset:
    variables: dict[str, Any] = {}
    for name, dim in _KEPT.items():
        attrs = done[0][name].attrs
        title = attrs["long_name"].replace("position 0", "the first position")
        values = np.stack([result[name].values for result in done])
        bounds = tuple(None if np.isinf(attrs[end]) else attrs[end] for end in ("valid_min", "valid_max"))
        variables[name] = (f"group {dim}", values, attrs["units"], bounds, title)
    rates = np.array([mean_known(result["sink_rate"].values, 0) for result in done])
    result = dataset(
        coords={"group": names},
        **variables,
        model_sink_rate=("group", rates, "share of heads", (0, 1), "heads that sink on the first position"),
    )
    convention = f"T = {n_tokens} as given, first visible position, epsilon = {epsilon:g}"
    hidden = dict(zip(names, map(_hidden, done), strict=True))
    summary = _summary(dict(zip(names, rates.tolist(), strict=True)), hidden, result.sizes["layer"])
    return result.assign_attrs(convention=convention, summary=summary, provenance=done[0].attrs["provenance"])


def _hidden(result: xr.Dataset) -> int:
    """Layers whose window hides the first token of a prompt."""
    return int(result["first_received"].isnull().all("head").sum())


def _summary(rates: Mapping[str, float], hidden: Mapping[str, int], n_layers: int) -> str:
    """The share of every condition; of those where it cannot be told, that it cannot. hidden: layers that are left out
    of it."""
    told = {name: rate for name, rate in rates.items() if not np.isnan(rate)}
    if not told:
        return "In no condition a sink can be told: the prompt is too short, or a window hides its first token."
    said = (
        f"Heads that sink on the first visible position: {', '.join(f'{r:.0%} ({name})' for name, r in told.items())}."
    )
    counts = {hidden[name] for name in told}
    if any(counts):
        layers = f"{'Up to ' if len(counts) > 1 else ''}{counted(max(counts), 'layer')}"
        said += f" {layers} left out: where a window is shorter than the prompt, it hides its start."
    for why, is_why in (("Too short to tell", False), ("A window hides the first token", True)):
        if left := [name for name in rates if name not in told and (hidden[name] == n_layers) == is_why]:
            said += f" {why}: {'; '.join(left)}."
    return said


def sink_figure(result: xr.Dataset) -> "go.Figure":
    """Share of heads that sink by layer, one line for each condition."""
    from workbench.figures import series

    title = f"Heads that sink ({result.attrs['convention']})"
    return series(result, "sink_rate", "layer", by="group", title=title)


@reads("sink-conditions")
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


VIEW = View(
    SinkConditions,
    question="Does a sink belong to the BOS token, or to the first place, whatever stands there?",
    asks=(Ask("epsilon", "Count a head as sinking above an attention share of"),),
    figures=(sink_figure, peak_figure, drain_figure),
)
