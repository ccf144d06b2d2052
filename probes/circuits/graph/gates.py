"""A gate on every edge, between 0 (what comes along is the other run's) and 1 (its own): the pass, and how the metric
changes with each of them.

A target reads what it would read with all gates closed plus gate (own - other) of its sources; with gates of 0 and 1
that is `with_edges`. The change of the metric with a gate is (own - other) times the gradient by what the target reads,
both in the gated run, so that it sees what the other gates let pass; with all gates open it is the score of EAP, or of
RelP by its rules.

One forward and one backward pass a batch, whatever the number of edges; where all gates are open they take about twice
as long as EAP's, since each head reads three states of its own, and the less the fewer are open. What is kept is that
of two sources, `[source, row, pos, d_model]`.
"""

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from probes.circuits.graph.gradients import EAP, Rules, Values, follow, readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import Seen, heads_apart, matching, run
from workbench.errors import InputError
from workbench.models.hooks import MLP_IN, RESID_PRE, K, Q, V
from workbench.models.model import Model
from workbench.models.norm import Norm
from workbench.models.passes import Attached

__all__ = ["gate_gradients"]


def gate_gradients(
    model: Model,
    ids: torch.Tensor,
    gates: np.ndarray,
    other: torch.Tensor,
    metric: Values,
    rules: Rules = EAP,
    *,
    asked: np.ndarray | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """The metric of each row with gates on the edges, `[row]`, and its change with every gate, float32 `[row, source,
    target]`, 0 where there is no edge.

    ids: `[row, pos]` without padding. gates: `[source, target]`, 0 to 1. other: as for `with_edges`. metric: of the
    logits at the last position. asked: `[source, target]`, the gates whose changes are wanted, besides those that are
    open; faster where they are few; of all gates by default.
    Leaves no gradient on any parameter. InputError for gates of another graph.
    """
    graph = Graph.of(model.sizes)
    if gates.shape != graph.shape or not np.isfinite(gates[graph.exists]).all():
        raise InputError(f"gates of shape {gates.shape}", f"numbers of shape {graph.shape}", "Gate every edge")
    matching(model, ids, other)
    wanted = graph.exists if asked is None else (gates != 0) & graph.exists | asked & graph.exists
    with model.passes.run(), torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        gated = _Gated(graph, np.where(graph.exists, gates, 0), wanted, other, (*ids.shape, model.sizes.d_model))
        seen = Seen(model, graph, gated.take)
        with warnings.catch_warnings(), Attached(model) as writing:
            warnings.simplefilter("ignore")  # of norms that are computed from their edited scale: that is meant
            call = heads_apart(model, stack, writing, gated.apart())
            follow(model, writing, rules)
            for layer in range(graph.n_layers):
                _edit_attention(model, writing, layer, seen, gated, call, rules.frozen)
                if graph.mlps:
                    writing.add(
                        model.adapter.point(MLP_IN, layer), _mlp_editor(model, layer, seen, gated, rules.frozen)
                    )
            run(model, ids, seen)
        read = gated.read(seen.last, graph.shape[0], np.array([graph.shape[1] - 1]))[0]
        values = metric(readout_logits(model, read[:, -1].float(), frozen=rules.frozen))
        if values.requires_grad:  # else the logits read nothing by an edge that is asked
            torch.autograd.grad(values.sum(), gated.start)
    gated.token = None  # holds the graph, which holds this: else both stay until the next collection of garbage
    return values.detach(), gated.found


class _Gated:
    """Other minus own of every source, what that makes of a target's input, and on the way back what the metric gains
    by each source and by each gate.

    Sources and their gradients are in one buffer each: tensors of their own would hold every source once for each layer
    behind it. `token` passes from source to source, so that the way back comes to a source when it has been to all that
    read it. asked: the gates whose changes are wanted, all that are open among them.
    """

    def __init__(
        self, graph: Graph, gates: np.ndarray, asked: np.ndarray, other: torch.Tensor, shape: tuple[int, ...]
    ) -> None:
        self.graph, self.other, self.asked = graph, other, asked
        self.gates = torch.from_numpy(gates.astype(np.float32))
        self.values = torch.zeros(graph.shape[0], *shape, dtype=torch.float32)
        self.total = torch.zeros(shape, dtype=torch.float32)  # of all sources that have come by
        self.back = torch.zeros_like(self.values)
        self.found = np.zeros((shape[0], *graph.shape), np.float32)
        self.start = torch.zeros((), dtype=torch.float32, requires_grad=True)
        self.token: Any = self.start

    def apart(self) -> list[int]:
        """Layers in which keys or values of a head are asked for."""
        n_heads, graph = self.graph.n_heads, self.graph
        return [layer for layer in range(graph.n_layers) if self.asked[:, graph.inputs(layer)][:, n_heads:].any()]

    def live(self, targets: slice) -> np.ndarray:
        """Places among targets of those that are asked for."""
        return np.flatnonzero(self.asked[:, targets].any(0))

    def take(self, place: Any, own: torch.Tensor) -> None:
        """Sources that have come by."""
        self.token = _Taken.apply(own, self.token, self, place)

    def closed(self, stream: torch.Tensor) -> torch.Tensor:
        """What targets read behind this stream with all gates closed, without gradients."""
        return stream.detach() + self.total.to(stream)

    def read(self, stream: torch.Tensor, n: int, targets: np.ndarray) -> torch.Tensor:
        """What targets read of the first n sources, `[target, row, pos, d_model]`."""
        moved = _Moved.apply(self.token, self, n, targets)
        return self.closed(stream) + moved.to(stream)


class _Taken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, token: torch.Tensor, gated: _Gated, place: Any) -> torch.Tensor:
        ctx.gated, ctx.place = gated, place
        torch.sub(gated.other[place], own, out=gated.values[place])
        gated.total += gated.values[place] if isinstance(place, int) else gated.values[place].sum(0)
        return token.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return -ctx.gated.back[ctx.place], grads[0], None, None


class _Moved(torch.autograd.Function):
    """Gates times own - other, summed over the sources of each target."""

    @staticmethod
    def forward(ctx: Any, token: torch.Tensor, gated: _Gated, n: int, targets: np.ndarray) -> torch.Tensor:
        rows = np.flatnonzero(gated.asked[:n, targets].any(1))
        ctx.gated, ctx.targets, ctx.rows = gated, targets, rows
        ctx.gates = gated.gates[:n, targets] if len(rows) == n else gated.gates[np.ix_(rows, targets)]
        values = _first(gated.values, rows, n)
        ctx.n = n
        return -(ctx.gates.T @ values.flatten(1)).view(-1, *values.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        gated, n, rows, (grad,) = ctx.gated, ctx.n, ctx.rows, grads
        lost = ctx.gates @ grad.flatten(1)
        if len(rows) == n:
            gated.back[:n].flatten(1).sub_(lost)
        else:
            gated.back.flatten(1).index_add_(0, torch.from_numpy(rows), lost, alpha=-1)
        change = _first(gated.values, rows, n).permute(1, 0, 2, 3).flatten(2)  # row source (pos d_model)
        by_gate = -torch.bmm(change, grad.permute(1, 2, 3, 0).flatten(1, 2)).numpy()
        places = np.ix_(rows, ctx.targets)
        gated.found[:, places[0], places[1]] = np.where(gated.asked[places], by_gate, 0)
        return grad.new_zeros(()), None, None, None


def _first(values: torch.Tensor, rows: np.ndarray, n: int) -> torch.Tensor:
    """Sources by their places among the first n."""
    return values[:n] if len(rows) == n else values[torch.from_numpy(rows)]


def _edit_attention(
    model: Model,
    writing: Attached,
    layer: int,
    seen: Seen,
    gated: _Gated,
    call: Callable[[int], int],
    frozen: bool,
) -> None:
    """Queries, keys and values from what each head's own inputs read; no gradient goes past them."""
    sizes, weights, graph = model.sizes, model.weights(layer), gated.graph
    group = sizes.n_heads // sizes.n_key_value_heads
    norm, inputs = model.adapter.norm(layer, "attention"), graph.inputs(layer)
    live, made = gated.live(inputs), {}

    def change_of(name: str) -> torch.Tensor:
        """By query head, `[row, pos, head, d_head]`; of targets that nothing is asked of, all read the same."""
        if "" not in made:
            made[""] = norm(seen.pre).detach()
            made["closed"] = norm(gated.closed(seen.pre)).detach() - made[""]
            if len(live):
                read = gated.read(seen.pre, graph.sources_before(layer), inputs.start + live)
                made["live"] = _normed(norm, read, frozen) - made[""]
        n = "qkv".index(name)
        W = (weights.W_Q, weights.W_K, weights.W_V)[n].detach().to(seen.pre)
        W = W if len(W) == sizes.n_heads else weights.repeated(W, dim=0)
        by_head = (made["closed"] @ W.permute(1, 0, 2).flatten(1)).unflatten(-1, (sizes.n_heads, -1))
        here = np.flatnonzero(live // sizes.n_heads == n)
        if not len(here):
            return by_head
        heads = torch.from_numpy(live[here] % sizes.n_heads)
        states = made["live"][torch.from_numpy(here)]
        flat = torch.bmm(states.flatten(1, 2), W[heads])  # head (row pos) d_head
        return by_head.index_copy(2, heads, flat.unflatten(1, states.shape[1:3]).permute(1, 2, 0, 3))

    def adder(name: str) -> Callable[..., torch.Tensor]:
        def add(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
            if name not in made:
                made[name] = change_of(name)
            return activation.detach() + (made[name] if name == "q" else made[name][:, :, call(layer) :: group])

        return add

    for hook, name in ((Q, "q"), (K, "k"), (V, "v")):
        writing.add(model.adapter.point(hook, layer), adder(name))
    writing.add(model.adapter.point(RESID_PRE, layer), lambda activation, _: made.clear())


def _mlp_editor(model: Model, layer: int, seen: Seen, gated: _Gated, frozen: bool) -> Callable[..., torch.Tensor]:
    norm, at = model.adapter.norm(layer, "mlp"), gated.graph.mlp_input(layer)

    def edit(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        before = norm(seen.mid).detach()
        if not gated.asked[:, at].any():
            return activation.detach() + norm(gated.closed(seen.mid)).detach() - before
        read = gated.read(seen.mid, gated.graph.sources_of_mlp(layer), np.array([at]))[0]
        return activation.detach() + _normed(norm, read, frozen) - before

    return edit


def _normed(norm: Norm, states: torch.Tensor, frozen: bool) -> torch.Tensor:
    """Through a norm; frozen: whose scale is a constant on the way back."""
    if not frozen or norm.kind == "none":
        return norm(states)
    here = states.detach()
    change = states - here
    change = change - change.mean(-1, keepdim=True) if norm.kind == "layer" else change
    return norm(here).detach() + (change * (norm.gain / norm.scale(here))).to(here)
