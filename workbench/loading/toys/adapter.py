"""Our small module behind the same interface as a bridge."""

from typing import Any

import torch

from workbench.loading.build import numbers_of
from workbench.loading.toys.transformer import ToyTransformer
from workbench.models.hooks import LOGITS, Hook
from workbench.models.model import ExpertWeights, LayerWeights, Sizes
from workbench.models.norm import Norm
from workbench.models.readout import Readout

__all__ = ["ToyAdapter"]


class ToyAdapter:
    """Our small module behind the same interface as a bridge."""

    by_length = False
    ends: tuple[int, ...] = ()
    tuples: tuple[int, ...] = ()

    def __init__(self, module: ToyTransformer):
        self.module = module.eval()
        c = module.config
        self.sizes = Sizes(
            c.n_layers, c.n_heads, c.n_heads, c.d_model, c.d_head, c.d_mlp, c.d_vocab, c.n_ctx
        )  # fmt: skip

    @property
    def positions(self) -> str:
        """How a token's position enters, in words."""
        kind = self.module.config.positions
        return "learned, a vector for each" if kind == "learned" else kind

    @property
    def tied(self) -> bool:
        """The toy's are two."""
        return False

    @property
    def numbers(self) -> tuple[int, int]:
        """How many numbers its weights are, and their bytes."""
        return numbers_of(self.module)

    @property
    def device(self) -> torch.device:
        """Where the module lives."""
        return self.module.embed.weight.device

    def place(self, layer: int) -> torch.device:
        """The same for all layers."""
        return self.device

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[batch, pos]` ids to logits."""
        return self.module(tokens)

    def norm(self, layer: int, sublayer: str) -> Norm:
        """The norm in front of a sublayer; the toy's norms show no scale."""
        block: Any = self.module.blocks[layer]
        module, config = (block.ln1 if sublayer == "attention" else block.ln2), self.module.config
        ones = torch.ones(config.d_model, device=self.device, dtype=torch.float32)
        gain = ones if config.norm == "none" else module.weight.detach()
        return Norm(module, config.norm, gain, config.eps)

    def attention(self, layer: int) -> torch.nn.Module:
        """There is none apart from the block."""
        raise KeyError("attention")

    def reading_z(self, layer: int) -> None:
        """No module reads z: the block does."""

    def point(self, hook: Hook, layer: int | None) -> Any:
        """The hook point; KeyError where the toy has none."""
        if hook is LOGITS:
            return self.module.logits
        if layer is None:
            raise KeyError(hook.name)
        block: Any = self.module.blocks[layer]
        points = block.points
        if hook.name not in points:
            raise KeyError(hook.name)
        return points[hook.name]

    def remove(self, point: Any, handle: Any) -> None:
        """Take back what `point.add_hook` returned."""
        handle.hook.remove()
        for kept in (point.fwd_hooks, point.bwd_hooks):
            if handle in kept:
                kept.remove(handle)

    def weights(self, layer: int) -> LayerWeights:
        """Weights of one layer."""
        block: Any = self.module.blocks[layer]
        mlp = {} if not self.sizes.d_mlp else {"W_in": block.W_in.detach(), "W_out": block.W_out.detach()}
        biases, zeros = self.module.config.biases, block.W_O.new_zeros(self.sizes.d_model)
        if mlp:
            mlp["b_out"] = block.b_out.detach() if biases else zeros
        return LayerWeights(
            block.W_Q.detach(), block.W_K.detach(), block.W_V.detach(), block.W_O.detach(),
            block.b_O.detach() if biases else zeros,
            attention=self.module.config.attention, **mlp,
        )  # fmt: skip

    def expert(self, layer: int, expert: int) -> ExpertWeights:
        """There are none."""
        raise KeyError("expert")

    def readout(self) -> Readout:
        """Final norm and unembedding."""
        norm: Any = self.module.ln_final
        config = self.module.config
        ones = torch.ones(config.d_model, dtype=torch.float32, device=self.device)
        gain = ones if config.norm == "none" else norm.weight.detach()
        bias = norm.bias.detach() if config.norm == "layer" else torch.zeros_like(ones)
        return Readout(norm, self.module.unembed, config.norm, config.eps, gain, bias)

    @property
    def blocks(self) -> list[torch.nn.Module]:
        """The toy's blocks."""
        return list(self.module.blocks)

    def parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Names and tensors of all parameters."""
        return list(self.module.named_parameters())
