"""A small transformer with every intermediate named, for toys that are trained and circuits that are made by hand.

It has the hook points a bridge has, under the same names. What can be switched stands in `ToyConfig`; weights are drawn
from torch's generator, or in a `Draws`. In training mode attention that nobody watches is computed in one fused call.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from workbench.draws import Float32
from workbench.errors import InputError

__all__ = ["ToyConfig", "ToyTransformer"]

_CHOICES = {
    "attention": ("softmax", "relu"),
    "positions": ("learned", "rotary", "none"),
    "norm": ("none", "rms", "layer"),
}


@dataclass(frozen=True)
class ToyConfig:
    """Sizes and switches.

    attention: "softmax" or "relu" (relu(score) / visible keys). d_mlp 0: attention only. positions: "learned",
    "rotary" or "none". norm: in front of each sublayer and of the unembedding: "none", "rms" or "layer". biases: of
    every matrix but the embedding. n_items: tokens whose embedding is a learned linear map of `d_features` frozen
    numbers, the last ones of the vocabulary. InputError for a word or a size that is none.
    """

    n_layers: int = 2
    n_heads: int = 4
    d_model: int = 64
    d_head: int = 16
    d_vocab: int = 64
    n_ctx: int = 64
    d_mlp: int = 0
    attention: str = "softmax"
    norm: str = "none"
    eps: float = 1e-5
    positions: str = "learned"
    biases: bool = False
    n_items: int = 0
    d_features: int = 64

    def __post_init__(self) -> None:
        for name, words in _CHOICES.items():
            if getattr(self, name) not in words:
                raise InputError(f"{name}={getattr(self, name)!r}", f"one of {', '.join(words)}", "Choose one of these")
        for name in ("n_layers", "n_heads", "d_model", "d_head", "d_vocab", "n_ctx"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}", "at least 1", "Correct it")
        if self.d_mlp < 0 or (self.positions == "rotary" and self.d_head % 2):
            raise InputError(
                f"d_mlp={self.d_mlp}, d_head={self.d_head}", "sizes that exist (rotations: even)", "Mend it"
            )


class _Norm(nn.Module):
    """RMS or layer norm with a gain, the latter also with a bias."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(config.d_model)), config.eps
        self.bias = nn.Parameter(torch.zeros(config.d_model)) if config.norm == "layer" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is not None:
            return nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.weight


def _norm(config: ToyConfig) -> nn.Module:
    return nn.Identity() if config.norm == "none" else _Norm(config)


class ToyBlock(nn.Module):
    """Attention, then the MLP where there is one."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        h, d, e = config.n_heads, config.d_model, config.d_head
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.randn(h, d, e) / d**0.5) for _ in range(3))
        self.W_O = nn.Parameter(torch.randn(h, e, d) / (h * e) ** 0.5)
        self.ln1 = _norm(config)
        self.points = nn.ModuleDict({name: _point() for name in _names(config)})
        if config.biases:
            self.b_Q, self.b_K, self.b_V = (nn.Parameter(torch.zeros(h, e)) for _ in range(3))
            self.b_O = nn.Parameter(torch.zeros(d))
        if config.d_mlp:
            self.W_in = nn.Parameter(torch.randn(d, config.d_mlp) / d**0.5)
            self.W_out = nn.Parameter(torch.randn(config.d_mlp, d) / config.d_mlp**0.5)
            self.ln2 = _norm(config)
            if config.biases:
                self.b_in, self.b_out = nn.Parameter(torch.zeros(config.d_mlp)), nn.Parameter(torch.zeros(d))
        if config.positions == "rotary":
            cos, sin = _rotations(config)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = self.points
        x = at["resid_pre"](x)
        out = at["attn_out"](at["attn_result"](self.attend(at["attn_in"](self.ln1(x)))))
        if not self.config.d_mlp:
            return at["resid_post"](x + out)
        mid = at["resid_mid"](x + out)
        pre = at["mlp_in"](self.ln2(mid)) @ self.W_in
        post = at["mlp_post"](torch.relu(at["mlp_pre"](pre + self.b_in if self.config.biases else pre)))
        written = post @ self.W_out
        return at["resid_post"](mid + at["mlp_out"](written + self.b_out if self.config.biases else written))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """What attention adds, `[batch, pos, d_model]`, to a normalised state."""
        at = self.points
        q, k, v = (self.projected(x, name) for name in "qkv")
        q, k = self.rotated(q, "rot_q"), self.rotated(k, "rot_k")
        z = at["z"](self._fused(q, k, v) if self._unwatched() else self._mixed(q, k, v))
        out = z.flatten(-2) @ self.W_O.flatten(0, 1)
        return out + self.b_O if self.config.biases else out

    def projected(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """q, k or v of a normalised state, `[batch, pos, head, d_head]`."""
        weight = getattr(self, f"W_{name.upper()}")
        flat = x @ weight.transpose(0, 1).reshape(x.shape[-1], -1)
        found = flat.unflatten(-1, (self.config.n_heads, self.config.d_head))
        return self.points[name](found + getattr(self, f"b_{name.upper()}") if self.config.biases else found)

    def rotated(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """q or k turned by its position, where positions are rotations."""
        if self.config.positions != "rotary":
            return x
        turned: Any = (self.cos, self.sin)
        cos, sin = (part[: x.shape[1]] for part in turned)
        left, right = x.chunk(2, -1)
        return self.points[name](torch.cat([left * cos - right * sin, left * sin + right * cos], -1))

    def _unwatched(self) -> bool:
        points = (self.points["scores"], self.points["pattern"])
        return self.training and self.config.attention == "softmax" and not any(p.fwd_hooks for p in points)

    def _fused(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    def _mixed(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        at = self.points
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / self.config.d_head**0.5
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        scores = at["scores"](scores.masked_fill(~visible, torch.finfo(scores.dtype).min))
        if self.config.attention == "relu":
            pattern = torch.relu(scores) / visible.sum(-1, keepdim=True)
        else:
            pattern = scores.softmax(-1)
        return (at["pattern"](pattern) @ v.transpose(1, 2)).transpose(1, 2)


def _rotations(config: ToyConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of every position's angles, `[pos, 1, d_head / 2]`; base 10000 as in RoFormer (arXiv 2104.09864)."""
    half = config.d_head // 2
    angles = torch.arange(config.n_ctx)[:, None] * 10000.0 ** -(torch.arange(half, dtype=torch.float32) / half)
    return angles.cos()[:, None], angles.sin()[:, None]


def _point() -> Any:
    from transformer_lens.hook_points import HookPoint

    return HookPoint()


def _names(config: ToyConfig) -> tuple[str, ...]:
    names = ["resid_pre", "attn_in", "q", "k", "v", "scores", "pattern", "z", "attn_result", "attn_out", "resid_post"]
    names += ["rot_q", "rot_k"] if config.positions == "rotary" else []
    return (*names, "resid_mid", "mlp_in", "mlp_pre", "mlp_post", "mlp_out") if config.d_mlp else tuple(names)


class ToyTransformer(nn.Module):
    """Embedding plus positions, blocks, optional final norm, untied unembedding."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        with Float32():
            self._build(config)

    def _build(self, config: ToyConfig) -> None:
        self.embed = nn.Embedding(config.d_vocab - config.n_items, config.d_model)
        if config.n_items:
            features = torch.randn(config.n_items, config.d_features)
            self.features = nn.Parameter(features, requires_grad=False)
            self.W_features = nn.Parameter(torch.randn(config.d_features, config.d_model) / config.d_features**0.5)
        if config.positions == "learned":
            self.positions = nn.Embedding(config.n_ctx, config.d_model)
        self.blocks = nn.ModuleList([ToyBlock(config) for _ in range(config.n_layers)])
        self.ln_final = _norm(config)
        self.unembed = nn.Linear(config.d_model, config.d_vocab, bias=config.biases)
        self.logits = _point()

    def forward(self, tokens: torch.Tensor, last: bool = False) -> torch.Tensor:
        """`[batch, pos]` ids to logits `[batch, pos, d_vocab]`; last: of the last position only."""
        return self.logits(self.unembed(self.states(tokens, last)))

    def states(self, tokens: torch.Tensor, last: bool = False) -> torch.Tensor:
        """What the unembedding reads, `[batch, pos, d_model]`."""
        x = self.embedded(tokens)
        for block in self.blocks:
            x = block(x)
        return self.ln_final(x[:, -1:] if last else x)

    def embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token embeddings with their positions, `[batch, pos, d_model]`."""
        if self.config.n_items:
            table = torch.cat([self.embed.weight, self.features @ self.W_features])
            x = nn.functional.embedding(tokens, table)
        else:
            x = self.embed(tokens)
        if self.config.positions != "learned":
            return x
        return x + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
