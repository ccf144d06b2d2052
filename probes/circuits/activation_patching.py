"""Activation patching: which states of the clean run bring its answer back."""

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from probes.circuits.prompt_pairs import (
    Against,
    Corrupt,
    PromptPair,
    TargetText,
    need_pair,
    pair_runs,
    top_tokens_metric,
)
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Position
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, Claim, View, reads
from workbench.errors import InputError
from workbench.figures import show_token
from workbench.intervene import Patch
from workbench.models.hooks import ATTN_OUT, MLP_OUT, PATTERN, RESID_MID, RESID_POST, RESID_PRE, Hook, V, Z
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, READOUT
from workbench.observation.metrics import KINDS, Metric
from workbench.observation.recording import Recording, record
from workbench.observation.sweeps import Base, base_run, sweep
from workbench.words import ROUNDING, change, hundredths

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["SITES", "VIEW", "ActivationPatching", "effect_figure", "patch_cells", "patching", "sites_of"]

SITES: dict[str, Hook] = {
    hook.name: hook for hook in (RESID_PRE, RESID_MID, RESID_POST, ATTN_OUT, MLP_OUT, Z, PATTERN, V)
}
_HEADS = (Z, PATTERN, V)


class ActivationPatching(Study, name="activation-patching", title="Activation patching", requires=(READOUT, PADDING)):
    """Which states of the clean run bring its answer back.

    Definition: The corrupt prompt runs with one activation replaced by what the clean run had there, and the metric
    moves from its corrupt value towards its clean one: effect = metric of the corrupt run with one activation of the
    clean run - metric of the corrupt run; recovered = effect / (metric(clean) - metric(corrupt)). Sites: the residual
    stream, attention and MLP outputs by (layer, pos); heads' z and pattern, and the values v of key/value heads, by
    (layer, head), at one position or at all. resid_mid is written through attn_out, since a bridge's own resid_mid
    reaches the MLP only. Prompts have equal length, and the differing tokens are in the result. Interventions edit both
    runs; what is patched is written on top of them.

    Limits: Shows what carries the difference between these two prompts, not all that the answer rests on: what restores
    the answer carries it in this pair, and other parts may carry it too, and be hidden behind each other.

    Source: Meng et al. 2022, arXiv 2202.05262 (causal tracing); Heimersheim and Nanda 2024, arXiv 2404.15255 (how to
    read it).

    Returns: `effect` and `recovered` over (layer, pos) or (layer, head), of values that query heads share over (layer,
    key_value_head), NaN where nothing is known yet, and the metric's `clean` and `corrupt` values.
    """

    corrupt: Corrupt = ""
    metric: Annotated[str, Choice(KINDS), "what is measured"] = "logit difference"
    target: TargetText = ""
    against: Against = ""
    site: Annotated[str, Choice(tuple(SITES)), "what is patched"] = "resid_pre"
    pos: Annotated[int | None, Position(), "position at which heads are patched; empty: all"] = None

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Patching of one site on the current prompt (clean) and a corrupt one."""
        pos = None if self.pos is None else tokens.place(self.pos)  # of the prompt, before a target goes on behind it
        runs = pair_runs(model, tokens, self.corrupt, self.metric, self.target, self.against)
        yield from patching(model, runs.pair, self.site, metric=runs.metric, pos=pos, progress=progress)

    def fits(self, model: Model, tokens: Tokens) -> None:
        """A corrupt prompt as long as the shown one, and targets that the model can say."""
        need_pair(model, tokens, self.corrupt, self.metric, self.target, self.against)

    def idle(self) -> dict[str, str]:
        """States are patched at each position in turn."""
        return {} if SITES[self.site] in _HEADS else {"pos": " or ".join(f"site={hook.name!r}" for hook in _HEADS)}

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Half a pass for every cell."""
        return 0.5 * sizes.n_layers * (sizes.n_heads if SITES[self.site] in _HEADS else n_tokens)


def sites_of(model: Model) -> tuple[str, ...]:
    """Sites this model has: no resid_mid in parallel blocks, no MLP where there is none."""
    without = ({"resid_mid"} if model.sizes.parallel else set()) if model.sizes.d_mlp else {"resid_mid", "mlp_out"}
    return tuple(name for name in SITES if name not in without)


def patch_cells(
    model: Model, source: Recording, site: str, positions: tuple[int, ...] | None
) -> tuple[list[list[Patch]], tuple[int, int]]:
    """One patch for each cell, and the shape (layer, pos) or (layer, head) they fill.

    positions: for heads, where they are patched (queries, for a pattern), None for all; other sites ignore it.
    """
    hook, n = SITES[site], model.sizes.n_layers
    if hook in _HEADS:
        heads = model.sizes.n_key_value_heads if hook is V else model.sizes.n_heads
        cells = [[Patch(hook, layer, source, positions, (head,))] for layer in range(n) for head in range(heads)]
        return cells, (n, heads)
    width = len(source.tokens)
    return [[Patch(hook, layer, source, (pos,))] for layer in range(n) for pos in range(width)], (n, width)


def patching(
    model: Model,
    pair: PromptPair,
    site: str,
    *,
    metric: Metric | None = None,
    pos: int | None = None,
    progress: Progress | None = None,
) -> Iterator[xr.Dataset]:
    """Patch every cell of a site; yields what is known after each batch, the last one complete. States in front of the
    first differing token are the same in both runs, so that nothing is patched there: their effect is 0.

    pos: for heads, the position at which they are patched; None for all. metric: by default the logit difference of the
    clean and the corrupt run's top tokens (the clean one's logit where they agree). Returns what `ActivationPatching`
    does.
    """
    if site not in sites_of(model):
        raise InputError(f"the site {site!r}", f"one of {', '.join(sites_of(model))}", "Choose one of these")
    clean, corrupt = base_run(model, pair.clean), base_run(model, pair.corrupt)
    metric = metric or top_tokens_metric(model, clean, corrupt)
    positions = None if pos is None else (pair.clean.place(pos),)
    cells, shape = patch_cells(model, record(model, pair.clean, [SITES[site]]), site, positions)
    ends = clean.value(model, metric), corrupt.value(model, metric)
    same = 0 if SITES[site] in _HEADS else min(pair.differing, default=0)  # positions at which both runs are the same
    places = np.array([i for i in range(len(cells)) if i % shape[1] >= same])
    values = torch.full((len(cells),), ends[1], dtype=torch.float64)
    values[places] = torch.nan
    for indices, found in sweep(model, corrupt, [cells[i] for i in places], metric, progress=progress):
        values[places[indices]] = found.double().cpu()
        yield _result(clean, pair, metric, site, values.view(shape).numpy(), ends, positions)


def _result(
    clean: Base, pair: PromptPair, metric: Metric, site: str, values: np.ndarray, ends: Any, positions: Any
) -> xr.Dataset:
    hook = SITES[site]
    sizes = clean.observation.sizes
    shared = hook is V and sizes.n_key_value_heads != sizes.n_heads  # the first of these is no query head
    dims = f"layer {'key_value_head' if shared else 'head'}" if hook in _HEADS else "layer pos"
    gap = ends[0] - ends[1]
    recovered = (values - ends[1]) / gap if abs(gap) > 1e-6 else np.full_like(values, np.nan)
    kind = {Z: "head", PATTERN: "head's pattern", V: "key/value head's values"}.get(hook, hook.name)
    result = dataset(
        clean.observation,
        effect=(dims, values - ends[1], metric.units, None, f"effect of patching the {kind}"),
        recovered=(dims, recovered, "share", None, "share of the clean value recovered"),
        clean=("", ends[0], metric.units, None, "metric of the clean run"),
        corrupt=("", ends[1], metric.units, None, "metric of the corrupt run"),
    )
    measured, strings = metric.describe(clean.observation.vocabulary), clean.observation.tokens[0].strings
    last = len(strings) - metric.length  # behind it stand the tokens of a longer target
    return result.assign_attrs(
        summary=pair.noted(metric.noted(f"The {measured} is {_summary(result, strings, last)}")),
        made_up=int(pair.made_up),
        site=site,
        metric=measured,
        **metric.tokens(clean.observation.vocabulary),
        differing=pair.describe(),
        corrupt_prompt=clean.observation.vocabulary.text(pair.corrupt.ids[: last + 1]),
        position="all" if positions is None else str(positions[0]),
    )


def _summary(result: xr.Dataset, strings: Sequence[str], last: int = -1) -> str:
    """The two ends of what is measured, which stands before them, and where patching does most; of states that is a
    late one of the last token, which brings back everything, so that the most before it is said, too. last: the
    prompt's last position."""
    effect, units = result["effect"], result["effect"].attrs["units"]
    clean, corrupt = (hundredths(float(result[end])) for end in ("clean", "corrupt"))
    said = f"{clean} {units} clean, {corrupt} corrupt."
    if not np.isfinite(effect.values).any():
        return said
    if np.nanmax(np.abs(effect.values)) < ROUNDING:
        return f"{said} Nothing of it that was patched changes that."
    place, most = _most(result, strings)
    said += f" Most is done at {most}."
    last %= len(strings)
    is_last = "pos" in effect.dims and place >= last
    before = result.isel(pos=slice(0, last)) if is_last else None
    if before is None or not np.isfinite(before["effect"].values).any():
        return said
    if np.nanmax(np.abs(before["effect"].values)) < ROUNDING:
        return f"{said} Before the last token nothing that was patched changes anything."
    return f"{said} Before the last token most is done at {_most(before, strings)[1]}."


def _most(result: xr.Dataset, strings: Sequence[str]) -> tuple[int, str]:
    """The head or position at which patching does most, and where that is, with how much it does."""
    effect = result["effect"]
    layer, place = np.unravel_index(np.nanargmax(np.abs(effect.values)), effect.shape)
    token = show_token(strings[int(place)], html=False) if "pos" in effect.dims else ""
    where = f"layer {layer}, token {place} {token}" if token else f"L{layer}H{place}"
    if "key_value_head" in effect.dims:
        where = f"key/value head {place} of layer {layer}"
    share = float(result["recovered"][layer, place])
    recovered = f", {share:.0%} of the difference" if np.isfinite(share) else ""
    return int(place), f"{where}: {change(float(effect[layer, place]))}{recovered}"


@reads("activation-patching")
def effect_figure(result: xr.Dataset) -> "go.Figure":
    """The grid of effects, by layer and position or head."""
    from workbench.figures import depth_pos_grid, heads_grid

    beside = ", from moved tokens" if result.attrs.get("made_up") else ""
    title = f"Patching {result.attrs['site']}{beside}: {result.attrs['metric']}"
    unit = next((str(dim) for dim in result["effect"].dims if str(dim).endswith("head")), None)
    if unit is None:
        return depth_pos_grid(result, "effect", title=title, color_range="data")
    return heads_grid(result, "effect", title=title, color_range="data", unit=unit)


def site_claim(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """What was patched at the selected place matters for the clean prompt."""
    return claims.head_or_state(result, selection, result.attrs["site"])


VIEW = View(
    ActivationPatching,
    question="Where does the difference between two prompts live?",
    asks=(
        Ask("corrupt", "Run", pick="pair", empty="a copy with moved tokens"),
        Ask("site", "and put back, place by place, this prompt's"),
        Ask("metric", "and measure"),
    ),
    figures=(effect_figure,),
    claims=(site_claim,),
)
