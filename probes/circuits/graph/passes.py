"""Passes over a model by its graph: what every source adds to the residual stream, and the model with some edges only.

What a head adds is z W_O, behind a post-norm with the scale of its own run and with an equal share of the bias, so that
sources and the model's constants sum to the stream; what an MLP adds is what arrives there. Edges are carried out in
one pass, in which every target reads what its own edges bring (`readings`). Where key/value heads are shared, attention
is called once for every query head of a group, each time with that head's keys and values.

Extra memory is that of the sources, `[source, row, pos, d_model]`, whatever the number of edges.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probes.circuits.graph.edited import arrived, need_parts
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.readings import Readings, readings_of
from workbench.errors import InputError, RefusedError
from workbench.intervene import hooks
from workbench.models.hooks import (
    ATTN_IN,
    MLP_IN,
    MLP_OUT,
    POST_ATTN_SCALE,
    RESID_MID,
    RESID_POST,
    RESID_PRE,
    Hook,
    K,
    Q,
    V,
    Z,
)
from workbench.models.model import Model
from workbench.models.passes import Attached, repeated
from workbench.observation.watch import Stop

__all__ = ["Seen", "Sources", "heads_apart", "matching", "run", "sources", "with_edges", "written"]

_SLACK = 1e-3  # of the largest value: what float32 norms computed twice may differ by, and bfloat16 may not hide
_STEPS = 64  # of a float32: what one product, made in two ways, may differ by
_ROUNDED = 4  # steps of the format: a head's query is rounded in it, and so is that of the first token


@dataclass(frozen=True, eq=False)
class Sources:
    """What every source adds in some runs, `added` `[source, row, pos, d_model]`, and their last states `[row, pos,
    d_model]`."""

    added: torch.Tensor
    last: torch.Tensor


def sources(model: Model, ids: torch.Tensor) -> Sources:
    """Of runs of ids `[row, pos]` without padding.

    RefusedError where attention or MLP reads the stream through another norm or other weights than the model shows:
    edges into it could not be changed.
    """
    graph = Graph.of(model.sizes)
    found = torch.empty(graph.shape[0], *ids.shape, model.sizes.d_model, dtype=torch.float32)
    seen = Seen(model, graph, lambda place, value: found[place].copy_(value), checking=True)
    with torch.no_grad(), model.passes.run():
        run(model, ids, seen)
    return Sources(found, seen.last)


def with_edges(model: Model, ids: torch.Tensor, mask: np.ndarray, other: torch.Tensor) -> torch.Tensor:
    """The last states `[row, pos, d_model]` that the logits read, with the edges of a circuit alone.

    mask: bool `[source, target]`. other: what comes along every other edge, `[source, row, pos, d_model]` or what
    broadcasts to that: the sources of other runs, their means, or zeros.
    """
    graph = Graph.of(model.sizes)
    matching(model, ids, other)
    readings = readings_of(model, graph, graph.checked(mask), other, ids.shape)
    seen = Seen(model, graph, readings.take)
    with torch.no_grad(), model.passes.run(), ExitStack() as stack, Attached(model) as writing:
        call = heads_apart(model, stack, writing, readings.apart(model.sizes))
        for layer in range(graph.n_layers):
            _edit_attention(model, graph, writing, layer, seen, readings, call)
            if graph.mlps:
                writing.add(model.adapter.point(MLP_IN, layer), _mlp_editor(model, graph, layer, seen, readings))
        run(model, ids, seen)
    return readings.of(seen.last, graph.shape[0], slice(graph.shape[1] - 1, graph.shape[1]))[0][0]


def matching(model: Model, ids: torch.Tensor, other: torch.Tensor) -> None:
    """InputError where sources of other runs do not fit ids `[row, pos]`."""
    n, shape = Graph.of(model.sizes).shape[0], (*ids.shape, model.sizes.d_model)
    if other.shape[0] != n or any(one not in (1, m) for one, m in zip(other.shape[1:], shape, strict=True)):
        raise InputError(
            f"sources of shape {tuple(other.shape)}",
            f"{(n, *shape)}",
            "Take them from runs of as many prompts of this length",
        )


def heads_apart(
    model: Model, stack: ExitStack, writing: Attached, layers: Sequence[int] | None = None
) -> Callable[[int], int]:
    """Give every query head keys and values of its own, as long as the stack is open: where they are shared, attention
    is called once for each query head of a group, and every head's z is kept of its own call.

    layers: only these. Returns a function that tells which call of a layer is under way: that of the heads
    `call::group`; 0 in layers with one.
    """
    sizes = model.sizes
    group, here = sizes.n_heads // sizes.n_key_value_heads, model.passes.here()
    if group == 1:
        return lambda layer: 0
    calls = {
        layer: stack.enter_context(repeated(model.adapter.attention(layer), group, here))
        for layer in (range(sizes.n_layers) if layers is None else layers)
    }

    def collector(layer: int) -> Callable[..., torch.Tensor | None]:
        parts: list[torch.Tensor] = []

        def collect(z: torch.Tensor, hook: Any = None) -> torch.Tensor | None:
            call = calls[layer]()
            if call == 0:
                parts.clear()
            parts.append(z[:, :, call::group])
            return torch.stack(parts, 3).flatten(2, 3) if call == group - 1 else None

        return collect

    for layer in calls:
        writing.add(model.adapter.point(Z, layer), collector(layer))
    return lambda layer: calls[layer]() if layer in calls else 0


def run(model: Model, ids: torch.Tensor, seen: "Seen") -> None:
    """The pass under way, up to the last state: what was set before writes, the model's interventions are carried out,
    and what they leave is seen."""
    with hooks(model, ()), Attached(model) as recording:
        seen.attach(recording)
        with suppress(Stop):
            model.adapter.forward(ids.to(model.adapter.device))


class Seen:
    """What comes by: the stream in front of each sublayer, and every source as soon as it is there.

    take: is called with the place of sources and what they add. checking: that the sublayers read through the norms
    and the weights that the model shows.
    """

    def __init__(
        self, model: Model, graph: Graph, take: Callable[[Any, torch.Tensor], Any], *, checking: bool = False
    ) -> None:
        self.model, self.graph, self.take, self._checking = model, graph, take, checking
        self.pre, self.mid, self.last = (torch.empty(0, dtype=torch.float32) for _ in range(3))
        self._z = torch.empty(0, dtype=torch.float32)
        self._scale: torch.Tensor | None = None
        need_parts(model)

    def attach(self, recording: Attached) -> None:
        """Behind the interventions."""
        add, last = self._adder(recording), self.graph.n_layers - 1
        for layer in range(self.graph.n_layers):
            add(RESID_PRE, layer, self._at_pre)
            add(Z, layer, self._at_z)
            if self.model.weights(layer).post_attn_gain is not None:
                add(POST_ATTN_SCALE, layer, self._at_scale)
            if self._checking:
                add(ATTN_IN, layer, self._check("attention"))
                for hook, W in zip((Q, K, V), _reading(self.model, layer), strict=True):
                    add(hook, layer, self._check_weights(hook, W))
            if self.graph.mlps:
                if not self.graph.parallel:
                    add(RESID_MID, layer, self._at_mid)
                if self._checking:
                    add(MLP_IN, layer, self._check("mlp"))
                add(MLP_OUT, layer, self._at_mlp)
            if layer == last or not self.graph.mlps or self.graph.parallel:
                add(RESID_POST, layer, self._at_post)

    def _adder(self, recording: Attached) -> Callable[[Hook, int, Callable[[int, torch.Tensor], None]], None]:
        def add(hook: Hook, layer: int, function: Callable[[int, torch.Tensor], None]) -> None:
            point = self.model.adapter.point(hook, layer)
            recording.add(point, lambda activation, _: function(layer, activation))

        return add

    def _at_pre(self, layer: int, activation: torch.Tensor) -> None:
        self.pre = self.mid = activation
        if layer == 0:
            self.take(0, activation.float())

    def _at_z(self, layer: int, activation: torch.Tensor) -> None:
        self._z, self._scale = activation, None

    def _at_scale(self, layer: int, activation: torch.Tensor) -> None:
        self._scale = activation

    def _at_mid(self, layer: int, activation: torch.Tensor) -> None:
        self.heads_done(layer)
        self.mid = activation

    def _at_mlp(self, layer: int, activation: torch.Tensor) -> None:
        self.take(self.graph.mlp(layer), activation.float())

    def _at_post(self, layer: int, activation: torch.Tensor) -> None:
        if not self.graph.mlps or self.graph.parallel:
            self.heads_done(layer)
        if layer == self.graph.n_layers - 1:
            self.last = activation
            raise Stop

    def heads_done(self, layer: int) -> None:
        """Hand on what the heads of a layer add."""
        added = written(self.model, layer, self._z, self._scale)
        self.take(self.graph.heads(layer), arrived(self.model, layer, added))

    def _check(self, sublayer: str) -> Callable[[int, torch.Tensor], None]:
        def check(layer: int, read: torch.Tensor) -> None:
            shown = self.model.adapter.norm(layer, sublayer)(self.pre if sublayer == "attention" else self.mid)
            gap = float((shown.float() - read.float()).abs().max() / read.float().abs().max().clamp(min=1e-30))
            if not gap < _SLACK:
                raise RefusedError(
                    f"{self.model.name}, whose {sublayer} in layer {layer} reads something else than its norm gives "
                    f"(relative gap {gap:.1g})",
                    "sublayers that read the residual stream through a norm",
                    "Use analyses of nodes: edges into it cannot be changed",
                )

        return check

    def _check_weights(self, hook: Hook, W: torch.Tensor) -> Callable[[int, torch.Tensor], None]:
        """That what a head reads with is its weights, and nothing beside them: of the change from the first token on,
        in which a bias has no part."""

        def check(layer: int, read: torch.Tensor) -> None:
            states = self.model.adapter.norm(layer, "attention")(self.pre)
            states, whole = states.float(), read.float()
            moved = torch.einsum("r p d, h d e -> r p h e", states - states[:, :1], W.to(read.dtype).to(states))
            gap = float((moved - (whole - whole[:, :1])).abs().max() / whole.abs().max().clamp(min=1e-30))
            if not gap < max(_SLACK, _ROUNDED * torch.finfo(read.dtype).eps):
                raise RefusedError(
                    f"{self.model.name}, whose {hook.name} in layer {layer} is not what its weights make of the state "
                    f"(relative gap {gap:.1g})",
                    "heads that read the residual stream through their weights alone",
                    "Merge what was put beside the weights into them, or use analyses of nodes",
                )

        return check


def _reading(model: Model, layer: int) -> tuple[torch.Tensor, ...]:
    weights = model.weights(layer)
    return weights.W_Q, weights.W_K, weights.W_V


def written(model: Model, layer: int, z: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """What each head adds to the stream, float32 `[head, row, pos, d_model]`, of z `[row, pos, head, d_head]`.

    scale: what a post-norm divides by. With one, b_O is behind it as well, and each head has an equal share.
    """
    weights = model.weights(layer)
    heads = z.float().permute(2, 0, 1, 3).flatten(1, 2) @ weights.W_O.float()
    heads = heads.unflatten(1, z.shape[:2])
    if scale is None:
        return heads
    assert weights.post_attn_gain is not None, "a scale comes with a gain"
    return (heads + weights.b_O.float() / len(heads)) * (weights.post_attn_gain.float() / scale.float())


def _edit_attention(
    model: Model,
    graph: Graph,
    writing: Attached,
    layer: int,
    seen: Seen,
    readings: Readings,
    call: Callable[[int], int],
) -> None:
    """Queries, keys and values from what each head's own inputs read."""
    sizes, weights = model.sizes, model.weights(layer)
    group = sizes.n_heads // sizes.n_key_value_heads
    norm = model.adapter.norm(layer, "attention")
    made: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def made_of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """What the weights make of each query head's own inputs, and of the stream, `[row, pos, head, d_head]`; made
        once a layer, at the first of the three."""
        if not made:
            states, which = readings.of(seen.pre, graph.sources_before(layer), graph.inputs(layer))
            states, stream = norm(states), norm(seen.pre)[None]
            for n, (what, W) in enumerate((("q", weights.W_Q), ("k", weights.W_K), ("v", weights.W_V))):
                whole = _projected(stream, np.zeros(len(W), int), W.to(states))
                W = W if len(W) == sizes.n_heads else weights.repeated(W, dim=0)
                own = which[n * sizes.n_heads : (n + 1) * sizes.n_heads]
                made[what] = _projected(states, own, W.to(states)), whole
        return made[name]

    def adder(name: str) -> Callable[..., torch.Tensor]:
        def add(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
            ours, whole = made_of(name)
            if name != "q":
                ours = ours[:, :, call(layer) :: group]
            return ours + _beside(activation, whole)

        return add

    for hook, name in ((Q, "q"), (K, "k"), (V, "v")):
        writing.add(model.adapter.point(hook, layer), adder(name))
    writing.add(model.adapter.point(RESID_PRE, layer), lambda activation, _: made.clear())


def _beside(activation: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """What of queries, keys or values is not made of the stream by the weights: a bias, what an edit adds. Where it is
    rounding it is none: a post-norm would make of that as much as of what a head writes."""
    left = activation - made
    size = float(activation.abs().max()) * _STEPS * torch.finfo(torch.float32).eps
    is_rounding = activation.dtype in (torch.float32, torch.float64) and float(left.abs().max()) <= size
    return torch.zeros_like(left) if is_rounding else left


def _projected(states: torch.Tensor, which: np.ndarray, W: torch.Tensor) -> torch.Tensor:
    """The state that each head reads, through its weights: `[row, pos, head, d_head]`.

    Heads that read the same state go through one product.
    """
    found = W.new_empty(*states.shape[1:3], *W.shape[::2])
    for one in np.unique(which):
        heads = torch.from_numpy(np.flatnonzero(which == one))
        joined = W[heads].permute(1, 0, 2).flatten(1)  # d_model (head d_head)
        found[:, :, heads] = (states[one] @ joined).unflatten(-1, (len(heads), -1))
    return found


def _mlp_editor(model: Model, graph: Graph, layer: int, seen: Seen, readings: Readings) -> Callable[..., torch.Tensor]:
    norm, at = model.adapter.norm(layer, "mlp"), graph.mlp_input(layer)

    def edit(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        states, _ = readings.of(seen.mid, graph.sources_of_mlp(layer), slice(at, at + 1))
        # In this order: what is read may be far smaller than what the model would have read, which goes first
        return norm(states[0]) + (activation - norm(seen.mid))

    return edit
