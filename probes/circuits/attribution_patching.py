"""Attribution patching: a first-order estimate of patching every node, from one forward and one backward pass."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from probes.circuits.prompt_pairs import Against, Corrupt, PromptPair, TargetText, need_pair, pair_runs
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.intervene import Patch, hooks
from workbench.models.hooks import ATTN_OUT, MLP_OUT, RESID_PRE, Hook, Z
from workbench.models.model import Model, Sizes
from workbench.models.passes import Attached
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, READOUT
from workbench.observation.metrics import KINDS, Metric
from workbench.observation.recording import Recording, record
from workbench.observation.sweeps import Base, values_of
from workbench.statistics import spearman
from workbench.words import change, counted, hundredths

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "VIEW",
    "AttributionPatching",
    "agreement_figure",
    "estimates",
    "gradients",
    "heads_figure",
    "node_estimates",
    "states_figure",
]

Site = tuple[Hook, int]
_NAMED = 4  # heads that the summary names


class AttributionPatching(
    Study, name="attribution-patching", title="Attribution patching", requires=(READOUT, PADDING)
):
    """What patching every node would do, to first order, from one forward and one backward pass.

    Definition: The metric's gradient at the corrupt run times what patching would change: estimate = sum over the node
    of (clean - corrupt) * gradient of the metric at the corrupt run, for every head (z), MLP and attention output, and
    for the residual stream by (layer, pos). It is exact where the metric is linear in the activation. How far it can be
    trusted is measured: some heads are truly patched, half of them those of largest estimate and half drawn from the
    rest, and the rank correlation with their estimates is reported. Interventions edit both runs; a node is taken as
    they leave it.

    Limits: A linear estimate: wrong where softmax or norms saturate, worst for the residual stream's large steps. The
    rank correlation with truly patched heads says how far to trust it here.

    Source: Nanda 2023, "Attribution patching"; Syed et al. 2023, arXiv 2310.10348; Kramar et al. 2024, arXiv 2403.00745
    (where it fails: saturated softmax and norms).

    Returns: `effect` (layer, head), estimated; `true_effect` (layer, head), NaN where nothing was patched; their
    `rank_correlation`; `resid_pre_estimate`, `attn_out_estimate`, `mlp_out_estimate` (layer, pos); the metric's `clean`
    and `corrupt` values.
    """

    corrupt: Corrupt = ""
    metric: Annotated[str, Choice(KINDS), "what is measured"] = "logit difference"
    target: TargetText = ""
    against: Against = ""
    checked: Annotated[int, Range(0, 5000), "heads that are truly patched"] = 60
    seed: Annotated[int, Range(0, 2**31 - 1), "seed of the random half of them"] = 0

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Estimates for all nodes and states, then true patching of some heads."""
        runs = pair_runs(model, tokens, self.corrupt, self.metric, self.target, self.against)
        pair, chosen, clean, base = runs.pair, runs.metric, runs.clean, runs.corrupt
        sites = [RESID_PRE, Z, ATTN_OUT, *([MLP_OUT] if model.sizes.d_mlp else [])]
        source = record(model, pair.clean, sites)
        found = estimates(model, source, pair.corrupt, chosen, sites)
        true = np.full((model.sizes.n_layers, model.sizes.n_heads), np.nan)
        yield _result(model, clean, base, pair, chosen, found, true)
        heads = _to_check(found[Z].sum(1).numpy(), self.checked, self.seed)
        cells = [[Patch(Z, layer, source, None, (head,))] for layer, head in heads]
        values = values_of(model, base, cells, chosen, progress=progress).double().numpy() - base.value(model, chosen)
        for (layer, head), value in zip(heads, values, strict=True):
            true[layer, head] = value
        yield _result(model, clean, base, pair, chosen, found, true)

    def fits(self, model: Model, tokens: Tokens) -> None:
        """A corrupt prompt as long as the shown one, and targets that the model can say."""
        need_pair(model, tokens, self.corrupt, self.metric, self.target, self.against)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A few passes for the estimates, and half a pass for every head that is patched."""
        return 6 + 0.5 * self.checked


def gradients(
    model: Model,
    tokens: Tokens,
    metric: Metric,
    sites: Sequence[Hook],
    interventions: Sequence[Any] = (),
    *,
    unedited: bool = False,
) -> tuple[dict[Site, torch.Tensor], dict[Site, torch.Tensor]]:
    """Activations of one run and the metric's gradient at each, `[pos, ...]` by (hook, layer).

    One forward and one backward pass. unedited: at a site, of what the interventions (those that the model carries,
    too) are given there, not of what they leave: where one overwrites it, the gradient is 0.

    A pass of its own, as `observe` makes one; leaves no gradient on any parameter.
    """
    kept: dict[Site, torch.Tensor] = {}
    adapter = model.adapter

    def keeping(key: Site) -> Callable[..., torch.Tensor]:
        def keep(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
            # A fresh tensor, handed on: a bridge may show one that it rebuilds before the next module reads it.
            kept[key] = activation.detach().requires_grad_() if key == (RESID_PRE, 0) else activation * 1.0
            return kept[key]

        return keep

    with model.passes.run(), torch.inference_mode(False), torch.enable_grad():
        with ExitStack() as edited, Attached(model) as attached:
            carry_out = lambda: edited.enter_context(hooks(model, interventions, tokens=[tokens]))
            if not unedited:
                carry_out()
            for hook in dict.fromkeys((RESID_PRE, *sites)):
                for layer in range(model.sizes.n_layers):
                    if hook in sites or layer == 0:
                        attached.add(adapter.point(hook, layer), keeping((hook, layer)))
            if unedited:
                carry_out()
            logits = adapter.forward(torch.tensor([tokens.ids], device=adapter.device)).float()
        value = metric.of_logits(logits[:, metric.needed(len(tokens))])[0]
        keys = [key for key in kept if key[0] in sites]
        found = torch.autograd.grad(value, [kept[key] for key in keys], allow_unused=True)
    grads = {k: torch.zeros_like(kept[k][0]) if g is None else g[0] for k, g in zip(keys, found, strict=True)}
    return {key: kept[key][0].detach() for key in keys}, grads


def estimates(
    model: Model,
    source: Recording,
    base: Tokens,
    metric: Metric,
    sites: Sequence[Hook],
    interventions: Sequence[Any] = (),
) -> dict[Hook, torch.Tensor]:
    """Estimated effect of patching each site from `source` into the run of `base`.

    `[layer, pos]` for states and outputs, `[layer, pos, head]` for z; sum over what is patched together.
    """
    activations, grads = gradients(model, base, metric, sites, interventions)
    found = {}
    for hook in sites:
        rows = []
        for layer in range(model.sizes.n_layers):
            change = source.take(hook, layer, model).to(grads[hook, layer]) - activations[hook, layer]
            rows.append((change * grads[hook, layer]).sum(-1))
        found[hook] = torch.stack(rows).double().cpu()
    return found


def node_estimates(
    model: Model, source: Recording, base: Tokens, metric: Metric, interventions: Sequence[Any] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates per node at all positions: heads `[layer, head]` and MLPs `[layer]` (empty without MLPs)."""
    sites = [Z, MLP_OUT] if model.sizes.d_mlp else [Z]
    found = estimates(model, source, base, metric, sites, interventions)
    mlps = found[MLP_OUT].sum(1).numpy() if model.sizes.d_mlp else np.zeros(0)
    return found[Z].sum(1).numpy(), mlps


def _to_check(estimate: np.ndarray, n: int, seed: int) -> list[tuple[int, int]]:
    """Half the cells of largest estimate, half drawn from the rest."""
    order = np.argsort(-np.abs(estimate), axis=None)
    strongest, rest = order[: (n + 1) // 2], order[(n + 1) // 2 :]
    drawn = np.random.default_rng(seed).permutation(rest)[: n // 2]
    cells = (np.unravel_index(cell, estimate.shape) for cell in (*strongest, *drawn))
    return [(int(layer), int(head)) for layer, head in cells]


def _result(
    model: Model,
    clean: Base,
    base: Base,
    pair: PromptPair,
    metric: Metric,
    found: Mapping[Hook, torch.Tensor],
    true: np.ndarray,
) -> xr.Dataset:
    heads = found[Z].sum(1).numpy()
    rho, _ = spearman(heads, true)
    variables: dict[str, Any] = {
        f"{hook.name}_estimate": (
            "layer pos",
            found[hook],
            metric.units,
            None,
            f"estimated effect of patching {hook.name}",
        )
        for hook in found
        if hook is not Z
    }
    result = dataset(
        clean.observation,
        effect=("layer head", heads, metric.units, None, "estimated effect of patching the head"),
        true_effect=("layer head", true, metric.units, None, "true effect of patching the head"),
        rank_correlation=("", rho, "rho", (-1, 1), "Spearman of estimate and true effect, on the patched heads"),
        clean=("", clean.value(model, metric), metric.units, None, "metric of the clean run"),
        corrupt=("", base.value(model, metric), metric.units, None, "metric of the corrupt run"),
        **variables,
    )
    measured = metric.describe(model.vocabulary)
    ends = hundredths(clean.value(model, metric)), hundredths(base.value(model, metric))
    said = f"The {measured} is {ends[0]} {metric.units} clean, {ends[1]} corrupt. {_summary(heads, true, rho)}"
    return result.assign_attrs(
        summary=pair.noted(metric.noted(said)),
        metric=measured,
        **metric.tokens(model.vocabulary),
        differing=pair.describe(),
        checked=int(np.isfinite(true).sum()),
    )


def _summary(heads: np.ndarray, true: np.ndarray, rho: float) -> str:
    """The strongest heads, and how far the estimate is to be trusted."""
    order = np.argsort(-np.abs(heads), axis=None)[:_NAMED]
    places = np.stack(np.unravel_index(order, heads.shape), -1).tolist()
    strongest = ", ".join(f"L{layer}H{head} {change(heads[layer, head])}" for layer, head in places)
    n = int(np.isfinite(true).sum())
    patched = f" Of {counted(n, 'head')} truly patched, the"
    if np.isfinite(rho):
        checked = f"{patched} rank correlation with the estimate is {hundredths(rho)}."
    else:
        checked = (
            f"{patched} effects have no rank correlation with the estimate: that needs three of unlike effects."
            if n
            else ""
        )
    return f"Strongest by estimate: {strongest}.{checked}"


@reads("attribution-patching")
def heads_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the estimates."""
    from workbench.figures import heads_grid

    return heads_grid(result, "effect", title=f"Estimated effect of patching heads: {result.attrs['metric']}")


@reads("attribution-patching")
def states_figure(result: xr.Dataset) -> "go.Figure":
    """The residual stream's estimates by layer and position."""
    from workbench.figures import depth_pos_grid

    return depth_pos_grid(
        result, "resid_pre_estimate", title="Estimated effect of patching the residual stream", color_range="data"
    )


def agreement_figure(result: xr.Dataset) -> "go.Figure":
    """True effects of the heads that were patched."""
    from workbench.figures import heads_grid

    rho = float(result["rank_correlation"])
    agreement = f" (rank correlation {hundredths(rho)})" if np.isfinite(rho) else ""
    title = f"True effect, {counted(result.attrs['checked'], 'head')}{agreement}"
    return heads_grid(result, "true_effect", title=title)


VIEW = View(
    AttributionPatching,
    question="Which heads carry the difference between two prompts, at a glance?",
    asks=(
        Ask("corrupt", "Estimate what each head carries from", pick="pair", empty="a copy with moved tokens"),
        Ask("checked", "and truly patch", unit="heads"),
        Ask("metric", "measuring"),
    ),
    figures=(heads_figure, states_figure, agreement_figure),
    claims=(claims.head,),
)
