"""Hooks at the neurons of single experts, which today's libraries compute all at once.

The experts of a layer are one tensor, and one product serves all (token, expert) pairs that the router chose. What
stands between its two matrices is one function of the module: there the pairs' neurons are met, and each expert's go
through a hook point of its own. All else, the order of sums included, stays the library's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from workbench.loading.components import scaled
from workbench.models.model import ExpertWeights

__all__ = ["ExpertNeurons", "expert_neurons"]

_BY_PAIRS = ("grouped_mm", "batched_mm")  # the library's ways that call the function with all pairs at once


def expert_neurons(experts: Any, scale: float, point: Callable[[], Any]) -> "ExpertNeurons | None":
    """The neurons of a module of experts; None where they cannot be met, or write through a norm of their own.

    scale: by which the block multiplies what is added. point: makes a hook point.
    """
    down = getattr(experts, "down_proj", None)
    if not isinstance(down, nn.Parameter) or down.ndim != 3:
        return None
    if type(experts).__name__ == "Llama4TextExperts":
        return _OfAllTokens(experts, scale, point)
    if not hasattr(experts, "_apply_gate") or getattr(experts, "has_post_expert_norm", True):
        return None
    return _OfPairs(experts, scale, point) if experts.config._experts_implementation in _BY_PAIRS else None


class ExpertNeurons:
    """The neurons of one layer's experts: a hook point for each expert, one for what all add up to, and weights.

    scaled_inside: the weight of an expert multiplies what it reads, and is in the activations already.
    """

    scaled_inside = False

    def __init__(self, experts: Any, scale: float, point: Callable[[], Any]) -> None:
        self.experts, self.scale = experts, scale
        transposed = getattr(experts, "is_transposed", True)
        self._W_out = experts.down_proj if transposed else experts.down_proj.mT  # expert neuron d_model
        self.n_experts, self.d_expert = self._W_out.shape[:2]
        self.posts = [point() for _ in range(self.n_experts)]
        self.out = point()

    def weights(self, expert: int) -> ExpertWeights:
        """What an expert writes with."""
        bias = getattr(self.experts, "down_proj_bias", None) if getattr(self.experts, "has_bias", False) else None
        W_out = self._W_out[expert].detach()
        b_out = W_out.new_zeros(W_out.shape[-1]) if bias is None else bias[expert].detach()
        return ExpertWeights(scaled(W_out, self.scale), scaled(b_out, self.scale), self.scaled_inside)

    @contextmanager
    def shown(self, batch: int, n_pos: int) -> Iterator[None]:
        """While open, activations pass through those points that have hooks."""
        hooked = [expert for expert, point in enumerate(self.posts) if point.fwd_hooks or point.bwd_hooks]
        with ExitStack() as stack:
            if self.out.fwd_hooks or self.out.bwd_hooks:

                def show(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
                    self.out(scaled(self._summed(output), self.scale).view(batch, n_pos, -1))

                stack.callback(self.experts.register_forward_hook(show).remove)
            if hooked:
                stack.enter_context(self._through(hooked, batch, n_pos))
            yield

    def _summed(self, output: torch.Tensor) -> torch.Tensor:
        """What the module returns, as one sum for each token."""
        return output

    def _through(self, hooked: list[int], batch: int, n_pos: int) -> Any:
        raise NotImplementedError


class _OfPairs(ExpertNeurons):
    """Neurons as rows of the chosen pairs, `[pair, neuron]`, sorted by expert or by token."""

    @contextmanager
    def _through(self, hooked: list[int], batch: int, n_pos: int) -> Iterator[None]:
        experts = self.experts
        function = "_apply_gate" if experts.has_gate else "act_fn"
        apply = getattr(experts, function)
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

        def choose(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
            chosen = next(x for x in given if not x.is_floating_point())
            expert = chosen.reshape(-1)
            token = torch.arange(len(chosen), device=chosen.device).repeat_interleave(chosen.shape[-1])
            if experts.config._experts_implementation == "grouped_mm":
                expert, order = torch.sort(expert)  # as the library does
                token = token[order]
            pairs[:] = [(expert, token)]

        def under_hooks(given: torch.Tensor) -> torch.Tensor:
            rows, (expert, token) = apply(given), pairs[0]
            for number in hooked:
                mine = (expert == number).nonzero()[:, 0]
                dense = rows.new_full((batch * n_pos, rows.shape[-1]), torch.nan)
                dense = dense.index_put((token[mine],), rows[mine])
                seen = self.posts[number](dense.view(batch, n_pos, -1)).reshape(dense.shape)
                rows = rows.index_put((mine,), seen[token[mine]].to(rows.dtype))
            return rows

        handle = experts.register_forward_pre_hook(choose, with_kwargs=True)
        experts.__dict__[function] = under_hooks  # plain assignment is refused for a submodule
        try:
            yield
        finally:
            del experts.__dict__[function]
            handle.remove()


class _OfAllTokens(ExpertNeurons):
    """Llama 4: every expert computes every token, times the router's weight, which is 0 where it is not chosen."""

    scaled_inside = True

    def _summed(self, output: torch.Tensor) -> torch.Tensor:
        return output.view(self.n_experts, -1, output.shape[-1]).sum(0)

    @contextmanager
    def _through(self, hooked: list[int], batch: int, n_pos: int) -> Iterator[None]:
        taken: list[torch.Tensor] = []

        def choose(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            taken[:] = [(args[0] != 0).any(-1).view(self.n_experts, -1)]

        def under_hooks(neurons: torch.Tensor) -> torch.Tensor:
            neurons = neurons.clone()
            for number in hooked:
                mine, here = taken[0][number][:, None], neurons[number]
                dense = here.masked_fill(~mine, torch.nan)
                seen = self.posts[number](dense.view(batch, n_pos, -1)).reshape(dense.shape)
                neurons[number] = torch.where(mine, seen.to(here.dtype), here)
            return neurons

        handle = self.experts.register_forward_pre_hook(choose)
        try:
            with _InFront(self.experts.down_proj, under_hooks):
                yield
        finally:
            handle.remove()


class _InFront(TorchFunctionMode):
    """While open, what a batched product multiplies by a matrix passes through a function."""

    def __init__(self, matrix: nn.Parameter, through: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.matrix, self.through = matrix, through

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The product under the hook; all else as it is."""
        if func is torch.bmm and args[1] is self.matrix:
            args = (self.through(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))
