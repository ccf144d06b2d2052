"""A small transformer with every intermediate named, for toys and hand-made circuits.

No biases; learned absolute positions or none; attention by softmax or by ReLU divided by the number of visible keys;
optional ReLU MLP; optional RMS norms. It has the hook points a bridge has, under the same names.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from torch import nn

from workbench.models.hooks import LN1_SCALE, LN2_SCALE, LN_FINAL_SCALE, Hook
from workbench.models.model import LayerWeights, Sizes
from workbench.models.norm import Norm
from workbench.models.passes import skipped
from workbench.models.readout import Readout

__all__ = ["ToyAdapter", "ToyConfig", "ToyTransformer"]


@dataclass(frozen=True)
class ToyConfig:
    """Sizes and switches. attention: "softmax" or "relu" (relu(score) / visible keys). d_mlp 0: attention only."""

    n_layers: int = 2
    n_heads: int = 4
    d_model: int = 64
    d_head: int = 16
    d_vocab: int = 64
    n_ctx: int = 64
    d_mlp: int = 0
    attention: str = "softmax"
    norm: bool = False
    eps: float = 1e-5


class _Norm(nn.Module):
    """RMS norm with a gain."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.weight, self.eps, self.scale = nn.Parameter(torch.ones(config.d_model)), config.eps, _point()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()) * self.weight


class _Unhooked(nn.Module):
    """The same norm without its hook point."""

    def __init__(self, norm: _Norm):
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + self.norm.eps).sqrt() * self.norm.weight


class _Block(nn.Module):
    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        h, d, e = config.n_heads, config.d_model, config.d_head
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.randn(h, d, e) / d**0.5) for _ in range(3))
        self.W_O = nn.Parameter(torch.randn(h, e, d) / (h * e) ** 0.5)
        self.ln1 = _Norm(config) if config.norm else nn.Identity()
        self.points = nn.ModuleDict({name: _point() for name in _names(config)})
        if config.d_mlp:
            self.W_in = nn.Parameter(torch.randn(d, config.d_mlp) / d**0.5)
            self.W_out = nn.Parameter(torch.randn(config.d_mlp, d) / config.d_mlp**0.5)
            self.ln2 = _Norm(config) if config.norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = self.points
        x = at["resid_pre"](x)
        out = at["attn_out"](at["attn_result"](self.attend(at["attn_in"](self.ln1(x)))))
        if not self.config.d_mlp:
            return at["resid_post"](x + out)
        mid = at["resid_mid"](x + out)
        post = at["mlp_post"](torch.relu(at["mlp_pre"](at["mlp_in"](self.ln2(mid)) @ self.W_in)))
        return at["resid_post"](mid + at["mlp_out"](post @ self.W_out))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """What attention adds, `[batch, pos, d_model]`."""
        at = self.points
        q, k, v = (
            at[name](einsum(x, w, "b t d, h d e -> b t h e"))
            for name, w in (("q", self.W_Q), ("k", self.W_K), ("v", self.W_V))
        )
        scores = einsum(q, k, "b q h e, b k h e -> b h q k") / self.config.d_head**0.5
        visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        scores = at["scores"](scores.masked_fill(~visible, torch.finfo(scores.dtype).min))
        if self.config.attention == "relu":
            pattern = torch.relu(scores) / visible.sum(-1, keepdim=True)
        else:
            pattern = scores.softmax(-1)
        z = at["z"](einsum(at["pattern"](pattern), v, "b h q k, b k h e -> b q h e"))
        return einsum(z, self.W_O, "b q h e, h e d -> b q d")


def _point() -> Any:
    from transformer_lens.hook_points import HookPoint

    return HookPoint()


def _names(config: ToyConfig) -> tuple[str, ...]:
    attention = (
        "resid_pre",
        "attn_in",
        "q",
        "k",
        "v",
        "scores",
        "pattern",
        "z",
        "attn_result",
        "attn_out",
        "resid_post",
    )
    return (*attention, "resid_mid", "mlp_in", "mlp_pre", "mlp_post", "mlp_out") if config.d_mlp else attention


class ToyTransformer(nn.Module):
    """Embedding plus positions, blocks, optional final norm, untied unembedding."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.d_vocab, config.d_model)
        self.positions = nn.Embedding(config.n_ctx, config.d_model)
        self.blocks = nn.ModuleList([_Block(config) for _ in range(config.n_layers)])
        self.ln_final = _Norm(config) if config.norm else nn.Identity()
        self.unembed = nn.Linear(config.d_model, config.d_vocab, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[batch, pos]` ids to logits `[batch, pos, d_vocab]`."""
        x = self.embed(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.ln_final(x))


class ToyAdapter:
    """Our small module behind the same interface as a bridge."""

    by_length = False
    ends: tuple[int, ...] = ()

    def __init__(self, module: ToyTransformer):
        self.module = module.eval()
        c = module.config
        self.sizes = Sizes(
            c.n_layers, c.n_heads, c.n_heads, c.d_model, c.d_head, c.d_mlp, c.d_vocab, c.n_ctx
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where the module lives."""
        return self.module.embed.weight.device

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[batch, pos]` ids to logits."""
        return self.module(tokens)

    def _norms(self, layer: int) -> dict[str, nn.Module]:
        """Norms in front of the sublayers, by the name of their scale."""
        block: Any = self.module.blocks[layer]
        return {LN1_SCALE.name: block.ln1} | ({LN2_SCALE.name: block.ln2} if self.sizes.d_mlp else {})

    def norm(self, layer: int, sublayer: str) -> Norm:
        """The RMS norm, or none; underneath its hook."""
        module: Any = self._norms(layer)[LN1_SCALE.name if sublayer == "attention" else LN2_SCALE.name]
        if isinstance(module, _Norm):
            return Norm(_Unhooked(module), "rms", module.weight.detach(), module.eps)
        return Norm(module, "none", torch.ones(self.sizes.d_model, device=self.device), 0.0)

    def attention(self, layer: int) -> nn.Module:
        """There is none apart from the block."""
        raise KeyError("attention")

    def reading_z(self, layer: int) -> None:
        """No module reads z: the block does."""

    def point(self, hook: Hook, layer: int | None) -> Any:
        """The hook point; KeyError where the toy has none."""
        norm: Any = self.module.ln_final if layer is None else self._norms(layer).get(hook.name)
        if hook in (LN1_SCALE, LN2_SCALE, LN_FINAL_SCALE) and isinstance(norm, _Norm):
            return norm.scale
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
        zeros = block.W_O.new_zeros(self.sizes.d_model)
        if mlp:
            mlp["b_out"] = zeros
        return LayerWeights(
            block.W_Q.detach(), block.W_K.detach(), block.W_V.detach(), block.W_O.detach(), zeros,
            attention=self.module.config.attention, **mlp,
        )  # fmt: skip

    def readout(self) -> Readout:
        """Final norm and unembedding."""
        final: Any = self.module.ln_final
        config = self.module.config
        norm: Any = _Unhooked(final) if config.norm else final
        ones = torch.ones(config.d_model, dtype=torch.float32, device=self.device)
        gain = final.weight.detach() if config.norm else ones
        return Readout(
            norm, self.module.unembed, "rms" if config.norm else "none", config.eps, gain, torch.zeros_like(ones)
        )

    @contextmanager
    def skipping(self, before: int, here: Callable[[], bool]) -> Iterator[None]:
        """While open, blocks 0 ... before-1 hand on their input where `here` says yes."""
        with skipped(list(self.module.blocks)[:before], here):
            yield

    def parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Names and tensors of all parameters."""
        return [(name, parameter.detach()) for name, parameter in self.module.named_parameters()]
