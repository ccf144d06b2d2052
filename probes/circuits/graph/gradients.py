"""What every input of every node is worth: the metric's gradient by the input, for all targets of the graph.

One forward and one backward pass a batch, whatever the number of edges. Gradients are read where inputs enter (q, k, v,
what the MLP reads, the last state) and taken back through the norm in front by hand, since the residual stream there is
one tensor that all targets share.

Rules say which local derivatives are used. All as they are: attribution patching. `RELP`: factors of norms constant, an
activation function x times a constant, each factor of a gated MLP half.

Source: Syed et al. 2023, arXiv 2310.10348; Jafari et al. 2025, arXiv 2508.21258 (RelP).
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import Seen, heads_apart, run
from workbench.errors import RefusedError
from workbench.models.hooks import (
    LN1_SCALE,
    LN2_SCALE,
    MLP_IN,
    MLP_POST,
    MLP_PRE,
    MLP_PRE_LINEAR,
    PATTERN,
    POST_ATTN_SCALE,
    POST_MLP_SCALE,
    RESID_PRE,
    Hook,
    K,
    Q,
    V,
)
from workbench.models.model import Model
from workbench.models.norm import Norm
from workbench.models.passes import Attached

__all__ = ["EAP", "RELP", "RELP_CONSTANT", "Rules", "Values", "follow", "input_gradients", "readout_logits"]


@dataclass(frozen=True)
class Rules:
    """Which local derivatives: frozen: of norms and activation functions those of RelP. pattern: what a pattern passes
    back to its scores, "gradient", "half" (and the values the other half) or "constant" (queries and keys get none)."""

    frozen: bool = False
    pattern: str = "gradient"


EAP = Rules()
RELP = Rules(frozen=True)
RELP_CONSTANT = Rules(frozen=True, pattern="constant")

Values = Callable[[torch.Tensor], torch.Tensor]  # logits [row, d_vocab] at the end of each prompt to metrics [row]


def input_gradients(
    model: Model,
    ids: torch.Tensor,
    metric: Values,
    rules: Rules = EAP,
    start: torch.Tensor | None = None,
    *,
    added: torch.Tensor | None = None,
) -> Iterator[tuple[Any, torch.Tensor]]:
    """Targets and the metric's gradient by their inputs, float32 `[target, row, pos, d_model]`, layer by layer.

    ids: `[row, pos]` without padding. metric: of the logits at the last position. start: what replaces the embedding as
    interventions leave it, `[row, pos, d_model]`. added: is filled with what every source of this pass adds, `[source,
    row, pos, d_model]`, as `sources` gives it; complete when the first gradient is there. Leaves no gradient on any
    parameter.
    """
    graph, sizes = Graph.of(model.sizes), model.sizes
    kept, streams = _Kept(), _Streams(model, graph, added, start)
    with model.passes.run(), torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        with warnings.catch_warnings(), Attached(model) as writing:
            warnings.simplefilter("ignore")  # of norms that are computed from their edited scale: that is meant
            call = heads_apart(model, stack, writing)
            follow(model, writing, rules)
            for layer in range(graph.n_layers):
                for hook in (Q, K, V, *((MLP_IN,) if graph.mlps else ())):
                    writing.add(model.adapter.point(hook, layer), kept.keeper(hook, layer, call))
            run(model, ids, streams)
        last = streams.last.float()
        values = metric(readout_logits(model, last[:, -1], frozen=rules.frozen))
        names = list(kept.values)
        wanted = [last, *(kept.values[name] for name in names)]
        first, *found = torch.autograd.grad(values.sum(), wanted, allow_unused=True)
    grads = {
        name: torch.zeros_like(kept.values[name]) if grad is None else grad.detach()
        for name, grad in zip(names, found, strict=True)
    }
    group = sizes.n_heads // sizes.n_key_value_heads
    for layer in range(graph.n_layers):
        yield from _of_layer(model, graph, layer, grads, streams, group, rules.frozen)
    yield slice(graph.shape[1] - 1, graph.shape[1]), first.detach()[None]


def _of_layer(
    model: Model, graph: Graph, layer: int, grads: Any, streams: "_Streams", group: int, frozen: bool
) -> Iterator[tuple[Any, torch.Tensor]]:
    """Of a layer's targets."""
    weights, n_heads = model.weights(layer), graph.n_heads
    queries = sum(grads[Q, layer, call] for call in range(group))
    apart = lambda hook: torch.stack([grads[hook, layer, call] for call in range(group)], 3).flatten(2, 3)
    rows = []
    for by_head, W in ((queries, weights.W_Q), (apart(K), weights.W_K), (apart(V), weights.W_V)):
        W = W if len(W) == n_heads else weights.repeated(W, dim=0)
        flat = by_head.float().permute(2, 0, 1, 3).flatten(1, 2)
        rows.append((flat @ W.float().mT).unflatten(1, by_head.shape[:2]))
    norm = model.adapter.norm(layer, "attention")
    yield graph.inputs(layer), norm.pulled_back(torch.cat(rows), streams.before[layer, "attention"], frozen=frozen)
    if graph.mlps:
        norm, at = model.adapter.norm(layer, "mlp"), graph.mlp_input(layer)
        back = norm.pulled_back(grads[MLP_IN, layer, 0].float(), streams.before[layer, "mlp"], frozen=frozen)
        yield slice(at, at + 1), back[None]


class _Kept:
    """Tensors of the graph of derivatives, by name."""

    def __init__(self) -> None:
        self.values: dict[Any, torch.Tensor] = {}

    def keeper(self, name: Hook, layer: int, call: Callable[[int], int]) -> Callable[..., torch.Tensor]:
        """A hook that hands on a fresh tensor: a bridge may show one that it rebuilds before the next module reads."""

        def keep(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
            at = (name, layer, 0 if name is MLP_IN else call(layer))
            self.values[at] = activation * 1.0
            return self.values[at]

        return keep


class _Streams(Seen):
    """The states in front of every sublayer, and what every source adds where that is asked. start: see
    `input_gradients`; it holds already what interventions add to an embedding."""

    def __init__(
        self, model: Model, graph: Graph, added: torch.Tensor | None, start: torch.Tensor | None = None
    ) -> None:
        # Not a method of its own: this would hold itself, and with it the states until the next collection of garbage
        super().__init__(model, graph, lambda place, value: _copy(added, place, value))
        self._added, self._start = added, start
        self.before: dict[tuple[int, str], torch.Tensor] = {}

    def attach(self, recording: Attached) -> None:
        """Beginning behind the interventions."""
        recording.add(self.model.adapter.point(RESID_PRE, 0), _starting(self._start))
        super().attach(recording)

    def _at_pre(self, layer: int, activation: torch.Tensor) -> None:
        super()._at_pre(layer, activation)
        self.before[layer, "attention"] = self.before[layer, "mlp"] = activation.detach()

    def _at_mid(self, layer: int, activation: torch.Tensor) -> None:
        super()._at_mid(layer, activation)
        self.before[layer, "mlp"] = activation.detach()

    def heads_done(self, layer: int) -> None:
        """Without derivatives, or not at all."""
        if self._added is not None:
            with torch.no_grad():
                super().heads_done(layer)


def _copy(added: torch.Tensor | None, place: Any, value: torch.Tensor) -> None:
    if added is not None:
        added[place].copy_(value.detach())


def _starting(start: torch.Tensor | None) -> Callable[..., torch.Tensor]:
    def begin(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        return (activation.detach() if start is None else start.to(activation)).clone().requires_grad_()

    return begin


# --- rules -----------------------------------------------------------------------------------------------------------


def follow(model: Model, writing: Attached, rules: Rules) -> None:
    """Hooks that change derivatives and no number."""
    sizes = model.sizes
    for layer in range(sizes.n_layers):
        if rules.pattern != "gradient":
            share = 0.5 if rules.pattern == "half" else 0.0
            writing.add(model.adapter.point(PATTERN, layer), lambda x, _, share=share: _passing(x, share))
            if rules.pattern == "half":
                writing.add(model.adapter.point(V, layer), lambda x, _: _passing(x, 0.5))
        if rules.frozen:
            _freeze_norms(model, writing, layer)
            if sizes.d_mlp:
                _freeze_neurons(model, writing, layer)


def _passing(x: torch.Tensor, share: float) -> torch.Tensor:
    """The same, that passes back a share of its gradient."""
    return x.detach() if share == 0 else share * x + (1 - share) * x.detach()


def _freeze_norms(model: Model, writing: Attached, layer: int) -> None:
    weights = model.weights(layer)
    in_front = [(LN1_SCALE, "attention"), *([(LN2_SCALE, "mlp")] if model.sizes.d_mlp else [])]
    scales: list[Hook] = [hook for hook, what in in_front if model.adapter.norm(layer, what).kind != "none"]
    scales += [POST_ATTN_SCALE] if weights.post_attn_gain is not None else []
    scales += [POST_MLP_SCALE] if weights.post_mlp_gain is not None else []
    for hook in scales:
        if model.sizes.parallel and hook is LN2_SCALE and not _has(model, hook, layer):
            continue  # both sublayers share the one in front of attention
        writing.add(_point(model, hook, layer), lambda scale, _: scale.detach().clone())


def _freeze_neurons(model: Model, writing: Attached, layer: int) -> None:
    """x act(x)/x with the quotient constant; of a gated pair each factor half."""
    gated = model.weights(layer).W_gate is not None
    seen: dict[Hook, torch.Tensor] = {}

    def keep(hook: Hook) -> Callable[..., None]:
        return lambda activation, _: seen.update({hook: activation})

    for hook in (MLP_PRE, MLP_PRE_LINEAR)[: 1 + gated]:
        writing.add(_point(model, hook, layer), keep(hook))

    def replace(post: torch.Tensor, hook: Any = None) -> torch.Tensor:
        whole, parts = post.detach(), [seen[MLP_PRE]]
        if gated:
            parts.append(seen[MLP_PRE_LINEAR])
        slopes = [torch.where(part == 0, 0.0, whole / part.detach()) / len(parts) for part in parts]
        linear = sum(slope * (part - part.detach()) for slope, part in zip(slopes, parts, strict=True))
        return whole + linear

    writing.add(_point(model, MLP_POST, layer), replace)


def _has(model: Model, hook: Hook, layer: int) -> bool:
    try:
        return model.adapter.point(hook, layer) is not None
    except KeyError:
        return False


def _point(model: Model, hook: Hook, layer: int) -> Any:
    try:
        return model.adapter.point(hook, layer)
    except KeyError:
        raise RefusedError(
            f"RelP on {model.name}, which shows no {hook.name} in layer {layer}",
            "MLPs and norms whose derivatives can be replaced",
            "Rank by attribution patching (EAP, EAP-IG)",
        ) from None


def readout_logits(model: Model, last: torch.Tensor, *, frozen: bool = False) -> torch.Tensor:
    """Logits `[row, d_vocab]` of last states `[row, d_model]`, with gradients; frozen: the final norm's scale is a
    constant."""
    readout = model.readout
    state = last.to(readout.W_U)
    if frozen and readout.kind != "none":
        norm = Norm(readout.norm, readout.kind, readout.gain, readout.eps)
        moved = state - state.detach()
        moved = moved - moved.mean(-1, keepdim=True) if readout.kind == "layer" else moved
        state = readout.norm(state.detach()) + (moved / norm.scale(state.detach()) * readout.gain).to(state)
    else:
        state = readout.norm(state)
    logits = readout.unembed(state).float() * readout.logit_scale
    return torch.tanh(logits / readout.soft_cap) * readout.soft_cap if readout.soft_cap else logits
