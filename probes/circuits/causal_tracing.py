"""Causal tracing: which states of a clean run restore a fact whose subject was hidden in noise."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from probes.circuits.prompt_pairs import segment
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, OfPrompt, Range
from workbench.analysis.progress import part
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, Claim, View, reads
from workbench.errors import InputError
from workbench.figures import show_token, stretches
from workbench.intervene import Patch, Steer
from workbench.models.hooks import ATTN_OUT, MLP_OUT, RESID_POST, RESID_PRE, Hook
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, READOUT
from workbench.observation.metrics import TARGET, Metric, followed_by, going_on, make_metric
from workbench.observation.recording import Recording, record
from workbench.observation.sweeps import Base, base_run, sweep
from workbench.statistics import bootstrap_interval
from workbench.words import hundredths

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["RESTORED", "VIEW", "CausalTracing", "profile_figure", "trace", "trace_figure"]

_LEAST = 0.05  # nats or logits: a change of a probability by a twentieth
_FEW = 2  # draws of which no spread can be told
_SHOWN = 8  # tokens of a subject that a sentence shows
RESTORED: dict[str, Hook] = {"resid_post": RESID_POST, "mlp_out": MLP_OUT, "attn_out": ATTN_OUT}


class CausalTracing(Study, name="causal-tracing", title="Causal tracing", requires=(READOUT, PADDING)):
    """Which states of a clean run restore a fact whose subject was hidden in noise.

    Definition: The subject's embeddings get Gaussian noise of `noise` standard deviations of the prompt's embeddings,
    in several draws; the metric falls from its clean value to the corrupt one. Then one thing of the clean run is put
    back: the residual stream behind block `layer` at `pos`, or the MLP or attention outputs of a window of layers
    around it. effect = metric with the subject in noise and one clean state put back - metric with the noise only;
    recovered is its share of clean - corrupt; means over draws, with an interval over them from 16 draws on.

    Limits: Noise takes the model where it never is; read it beside patching from a real prompt. Restored late states at
    the last position recover everything and say nothing about where a fact is kept. Where the noise changes the metric
    by less than 0.05 or two standard errors over its draws, shares of that say nothing, and the sentence gives none.

    Source: Meng et al. 2022, arXiv 2202.05262 (ROME; windows of 10 layers, noise of 3 standard deviations).

    Returns: `effect` and `recovered` (layer, pos), the first with its interval over draws (from the 16th on), `clean`,
    `corrupt` and `corrupt_draws` (draw).
    """

    subject: Annotated[
        str, OfPrompt(), "what gets noise: its text, or positions such as 3,4; empty: all but first and last"
    ] = ""
    restore: Annotated[str, Choice(tuple(RESTORED)), "what is put back"] = "resid_post"
    window: Annotated[int, Range(1, 99), "layers put back together, for mlp_out and attn_out"] = 10
    noise: Annotated[float, Range(0.01, 100.0), "standard deviations of the embeddings"] = 3.0
    draws: Annotated[int, Range(1, 100), "draws of the noise"] = 4
    metric: Annotated[str, Choice(("logit difference", "log-probability")), "what is measured"] = "log-probability"
    target: Annotated[str, f"{TARGET}; empty: the model's top token"] = ""
    against: Annotated[str, "what it is compared with"] = ""
    seed: Annotated[int, Range(0, 2**31 - 1), "seed of the noise"] = 0

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The trace of the current prompt."""
        where = segment(tokens, self.subject) if self.subject else tuple(range(1, len(tokens) - 1))
        more = going_on(model, self.metric, self.target, self.against)
        tokens = followed_by(model, tokens, more)
        logits = base_run(model, tokens).logits(model, -1 - len(more))
        metric = make_metric(model, tokens, logits, kind=self.metric, target=self.target, against=self.against)
        options = {name: getattr(self, name) for name in ("restore", "window", "noise", "draws", "seed")}
        yield from trace(model, tokens, metric, where, progress=progress, **options)

    def fits(self, model: Model, tokens: Tokens) -> None:
        """A subject that is in the prompt, and targets that the model can say."""
        if self.subject:
            segment(tokens, self.subject)
        going_on(model, self.metric, self.target, self.against)

    def idle(self) -> dict[str, str]:
        """A state holds what all layers before it wrote: it is put back alone."""
        return {"window": "restore='mlp_out' or restore='attn_out'"} if self.restore == "resid_post" else {}

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Half a pass for every cell of every draw."""
        return 0.5 * self.draws * sizes.n_layers * n_tokens


def trace(
    model: Model,
    tokens: Tokens,
    metric: Metric,
    subject: tuple[int, ...],
    *,
    restore: str,
    window: int,
    noise: float,
    draws: int,
    seed: int,
    progress: Progress | None = None,
) -> Iterator[xr.Dataset]:
    """Trace a fact; yields what `CausalTracing` does after every draw, the last result is complete.

    subject: positions that get noise. window: layers restored together, for mlp_out and attn_out; resid_post restores
    one.
    """
    if restore not in RESTORED or (restore == "mlp_out" and not model.sizes.d_mlp):
        raise InputError(f"restore={restore!r}", f"one of {', '.join(RESTORED)} that the model has", "Choose one")
    if not subject:
        raise InputError("an empty subject", "at least one token", "Name a part of the prompt")
    clean = base_run(model, tokens)
    source = record(model, tokens, [RESTORED[restore]])
    spans = _spans(model.sizes.n_layers, 1 if restore == "resid_post" else window)
    cells = _cells(source, RESTORED[restore], spans, len(tokens))
    last = metric.position % len(tokens)  # behind it stand the tokens of a longer target, which are not the prompt's
    size = noise * float(clean.states[0, min(1, last) : last + 1].std())
    generator = torch.Generator().manual_seed(seed)
    restored, corrupt = [], []
    for draw in range(draws):
        added = size * torch.randn(len(subject), model.sizes.d_model, generator=generator, dtype=torch.float32)
        base = base_run(model, tokens, [Steer(0, added, 1.0, RESID_PRE, positions=subject)])
        values = torch.full((len(cells),), torch.nan, dtype=torch.float64)
        share = part(progress, draw / draws, (draw + 1) / draws)
        for indices, found in sweep(model, base, cells, metric, progress=share):
            values[indices] = found.double().cpu()
        corrupt.append(base.value(model, metric))
        restored.append(values.view(-1, len(tokens)).numpy())
        yield _result(model, clean, metric, np.array(restored), np.array(corrupt), subject, restore, size, spans)


def _spans(n: int, width: int) -> list[range]:
    """The layers that are restored together, around each of n."""
    return [range(max(0, at - width // 2), min(n, at - width // 2 + width)) for at in range(n)]


def _cells(source: Recording, hook: Hook, spans: Sequence[range], n_pos: int) -> list[list[Patch]]:
    return [[Patch(hook, layer, source, (pos,)) for layer in span] for span in spans for pos in range(n_pos)]


def _result(
    model: Model,
    clean: Base,
    metric: Metric,
    restored: np.ndarray,
    corrupt: np.ndarray,
    subject: tuple[int, ...],
    restore: str,
    size: float,
    spans: Sequence[range],
) -> xr.Dataset:
    own = clean.value(model, metric)
    effects = restored - corrupt[:, None, None]
    low, high = bootstrap_interval(effects)
    gap = own - corrupt.mean()
    share = effects.mean(0) / gap if abs(gap) > 1e-6 else np.full_like(effects[0], np.nan)
    strings = clean.observation.tokens[0].strings
    result = dataset(
        clean.observation,
        effect=("layer pos", effects.mean(0), metric.units, None, f"effect of restoring {restore}"),
        effect_low=("layer pos", low, metric.units, None, f"95 % interval over {len(restored)} draws, low"),
        effect_high=("layer pos", high, metric.units, None, f"95 % interval over {len(restored)} draws, high"),
        recovered=("layer pos", share, "share", None, "share of the clean value recovered"),
        clean=("", own, metric.units, None, "metric of the clean run"),
        corrupt=("", corrupt.mean(), metric.units, None, "metric with the subject in noise"),
        corrupt_draws=("draw", corrupt, metric.units, None, "metric with the subject in noise, by draw"),
    )
    measured = metric.describe(model.vocabulary)
    last = metric.position % len(strings)
    said = _summary(share, own, corrupt, metric.units, subject, restore, strings, spans, last)
    return result.assign_attrs(
        summary=metric.noted(f"The {measured} is {said}"),
        metric=measured,
        **metric.tokens(model.vocabulary),
        subject=" ".join(map(str, subject)),
        restored=restore,
        position=last,
        noise_standard_deviation=size,
    )


def _is_told(gap: float, corrupt: np.ndarray) -> bool:
    """Whether the noise does something: more than anybody would see, and than two standard errors over its draws."""
    spread = corrupt.std(ddof=1) / len(corrupt) ** 0.5 if len(corrupt) > _FEW else 0.0
    return bool(abs(gap) > max(_LEAST, 2 * spread))


def _summary(
    recovered: np.ndarray,
    clean: float,
    corrupt: np.ndarray,
    units: str,
    subject: tuple[int, ...],
    restored: str,
    strings: Sequence[str],
    spans: Sequence[range] | None = None,
    last: int = -1,
) -> str:
    """The two ends (what is measured stands before them), where most comes back before the last token (whose late
    states bring back everything), and the layers at which the subject's last token and the last one bring back half of
    the loss. spans: the layers that are restored together, around each; last: the prompt's last position."""
    last %= recovered.shape[1]
    named = _named(subject, strings)
    said = [f"{hundredths(clean)} {units} clean, {hundredths(corrupt.mean())} with noise on {named}."]
    if not _is_told(clean - float(corrupt.mean()), corrupt):
        return f"{said[0]} That is no change that its draws agree on: there is nothing to bring back."
    spans = spans or _spans(len(recovered), 1)
    said += [_most(recovered[:, :last], restored, strings, spans)]
    at_subject, at_last = (np.flatnonzero(recovered[:, pos] >= 0.5) for pos in (subject[-1], last))
    if subject[-1] < last and len(at_subject) and len(at_last):
        around = "windows around " if max(map(len, spans)) > 1 else ""
        layers = [f"{around}{_layers(at.tolist())}" for at in (at_subject, at_last)]
        said.append(
            f"Half or more comes back at the subject's last token at {layers[0]}, and at the last one at {layers[1]}."
        )
    return " ".join(filter(None, said))


def _named(subject: tuple[int, ...], strings: Sequence[str]) -> str:
    """Its positions, and its tokens where they are few."""
    where = f"token{'s' if len(subject) > 1 else ''} {stretches(list(subject))}"
    shown = "".join(show_token(strings[pos], html=False) for pos in subject)
    return f"{where} {shown}" if len(subject) <= _SHOWN else where


def _layers(numbers: Iterable[int]) -> str:
    named = list(numbers)
    return f"{'layers' if len(named) > 1 else 'layer'} {stretches(named)}"


def _most(before: np.ndarray, restored: str, strings: Sequence[str], spans: Sequence[range]) -> str:
    """before: what is recovered in front of the last token, `[layer, pos]`."""
    if not before.size or np.isnan(before).all():
        return ""
    layer, pos = np.unravel_index(int(np.nanargmax(before)), before.shape)
    if before[layer, pos] < 0.005:  # of which the largest is rounding, at a token that says nothing
        what = f"one {restored}" if max(map(len, spans)) == 1 else f"{restored} of one window"
        little = "none" if before[layer, pos] <= 0 else "less than 1%"
        return f"Before the last token, restoring {what} brings back {little} of it."
    token, layers = show_token(strings[int(pos)], html=False), _layers(spans[int(layer)])
    return (
        f"Before the last token most comes back with {restored} of {layers} at token {pos} {token}: "
        f"{before[layer, pos]:.0%}."
    )


@reads("causal-tracing")
def trace_figure(result: xr.Dataset) -> "go.Figure":
    """What restoring a state brings back, by layer and token."""
    from workbench.figures import depth_pos_grid

    title = f"Restoring {result.attrs['restored']}: {result.attrs['metric']}"
    return depth_pos_grid(result, "effect", title=title, color_range="data")


def profile_figure(result: xr.Dataset) -> "go.Figure":
    """The same at the subject's last token and at the last token, by layer."""
    from workbench.figures import series

    last = int(result.attrs["subject"].split()[-1])
    places = [last, int(result.attrs.get("position", result["pos"][-1]))]
    chosen = result[["effect", "effect_low", "effect_high"]].sel(pos=places).rename(pos="segment")
    chosen = chosen.drop_vars("token_text", errors="ignore")
    chosen = chosen.assign_coords(segment=["subject's last token", "last token"])
    over = f" (95 % over {result.sizes['draw']} draws)" if chosen["effect_low"].notnull().any() else ""
    title = f"Restoring {result.attrs['restored']}, by layer{over}"
    return series(chosen, "effect", "layer", by="segment", title=title)


def restored_claim(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """What was restored at the selected place carries the fact."""
    return claims.head_or_state(result, selection, result.attrs["restored"])


VIEW = View(
    CausalTracing,
    question="Which states keep a fact whose subject was hidden?",
    asks=(
        Ask("subject", "Put noise on", pick="segment", empty="all tokens but the first and the last"),
        Ask("restore", "and then put back the clean"),
        Ask("draws", "with", unit="draws of the noise"),
    ),
    figures=(trace_figure, profile_figure),
    claims=(restored_claim,),
)
