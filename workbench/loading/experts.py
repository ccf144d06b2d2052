"""Hooks at a mixture of experts: the router's scores before they choose, the weights that they come to, and neurons.

Today's libraries hold all experts of a layer in one tensor, so that no hook on a single one fires; and each family has
its own rule from scores to weights (softmax before or after the choice, renormalised or not). So the router's one
linear map is met while it runs, and all that follows is the model's own rule. A written score is a written choice.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from workbench.loading.expert_neurons import ExpertNeurons

__all__ = ["Routed", "experts_of", "instrument_mixture", "router_of"]


def router_of(mlp: Any) -> nn.Module | None:
    """The router of an MLP component; None where it has no experts."""
    module = getattr(mlp, "original_component", None)
    if module is None:
        return None
    if hasattr(module, "router"):
        return _inner(module.router)
    return _inner(module.gate) if hasattr(module, "gate") and hasattr(module, "experts") else None


def experts_of(mlp: Any) -> Any:
    """The module that holds all experts of an MLP component; None without."""
    return _inner(getattr(mlp.original_component, "experts", None))


def _inner(module: Any) -> Any:
    """Behind the bridge's own wrapping."""
    return getattr(module, "original_component", None) or module


def _matrix(router: nn.Module) -> nn.Parameter:
    """The router's weights, `[expert, d_model]`."""
    return next(parameter for parameter in router.parameters() if parameter.ndim == 2)


class Routed(TorchFunctionMode):
    """While open, what the router's linear map gives passes through a hook point as `[batch, pos, expert]`."""

    def __init__(self, scores: nn.Module, matrix: nn.Parameter, batch: int, n_pos: int):
        super().__init__()
        self.scores, self.matrix, self.batch, self.n_pos = scores, matrix, batch, n_pos

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The router's map under the hook; all else as it is."""
        out = func(*args, **(kwargs or {}))
        if func is not nn.functional.linear or len(args) < 2 or args[1] is not self.matrix:
            return out
        return self.scores(out.view(self.batch, self.n_pos, -1)).reshape(out.shape)


def instrument_mixture(
    mlp: Any, router: nn.Module, scores: Any, weights: Any, neurons: ExpertNeurons | None = None
) -> int:
    """Put two hook points at the router of an MLP component, and those of its neurons; returns the number of experts.

    Scores may be written. Weights `[batch, pos, expert]`, 0 for experts that are not chosen, are for reading.
    """
    forward, matrix = type(mlp).forward, _matrix(router)

    def under_hooks(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        batch, n_pos = hidden_states.shape[:2]

        def show(module: nn.Module, inputs: Any, outputs: Any) -> None:
            weights(_dense(outputs, matrix.shape[0]).view(batch, n_pos, -1))

        with ExitStack() as stack:
            if scores.fwd_hooks or scores.bwd_hooks:
                stack.enter_context(Routed(scores, matrix, batch, n_pos))
            if weights.fwd_hooks:
                stack.callback(router.register_forward_hook(show).remove)
            if neurons is not None:
                stack.enter_context(neurons.shown(batch, n_pos))
            return forward(mlp, hidden_states, *args, **kwargs)

    mlp.__dict__["forward"] = under_hooks  # plain assignment would reach the wrapped module and stay
    return matrix.shape[0]


def _dense(outputs: Sequence[torch.Tensor], n_experts: int) -> torch.Tensor:
    """What a router returns, in whatever order, as weights `[token, expert]`: chosen ones, 0 elsewhere."""
    chosen = next((out for out in outputs if not out.is_floating_point()), None)
    if chosen is None:  # Llama 4: weights of all experts, 0 where not chosen
        return outputs[0]
    # the last one: where all experts are chosen, the scores before the choice have that shape too, and come first
    given = [out for out in outputs if out.is_floating_point() and out.shape == chosen.shape][-1]
    return given.new_zeros(*given.shape[:-1], n_experts).scatter(-1, chosen.long(), given)
