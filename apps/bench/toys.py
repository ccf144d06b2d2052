"""What training a toy costs: our steps beside a plain PyTorch loop of the same model, and looking at a checkpoint."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from apps.bench.subject import Subject

__all__ = ["STEPS", "looked_at", "plain_steps", "toy_steps"]

STEPS = 50
_TOY = "toy:induction,n_heads=4"


class _Plain(nn.Module):
    """The same sizes as whoever needs no hooks writes them: joint projections, fused attention."""

    def __init__(self, c: Any):
        super().__init__()
        self.c, d = c, c.d_model
        self.embed, self.unembed = nn.Embedding(c.d_vocab, d), nn.Linear(d, c.d_vocab, bias=False)
        self.qkv = nn.ModuleList([nn.Linear(d, 3 * d, bias=False) for _ in range(c.n_layers)])
        self.out = nn.ModuleList([nn.Linear(d, d, bias=False) for _ in range(c.n_layers)])
        self.norms = nn.ModuleList([nn.LayerNorm(d) for _ in range(c.n_layers + 1)])
        half = c.d_head // 2
        angles = torch.arange(c.n_ctx)[:, None] * 10000.0 ** -(torch.arange(half) / half)
        self.cos, self.sin = angles.cos(), angles.sin()

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, -1)
        return torch.cat([left * self.cos - right * self.sin, left * self.sin + right * self.cos], -1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.embed(tokens)
        for qkv, out, norm in zip(self.qkv, self.out, self.norms, strict=False):
            heads = qkv(norm(x)).unflatten(-1, (3, self.c.n_heads, self.c.d_head)).permute(2, 0, 3, 1, 4)
            q, k = self._turned(heads[0]), self._turned(heads[1])
            mixed = nn.functional.scaled_dot_product_attention(q, k, heads[2], is_causal=True)
            x = x + out(mixed.transpose(1, 2).flatten(2))
        return self.unembed(self.norms[-1](x))


def plain_steps(subject: Subject) -> Callable[[], Any]:
    """A loop of PyTorch alone, on the same batches."""
    from workbench.loading.toys.recipes import asked

    recipe = asked(_TOY).recipe
    model = _Plain(recipe.config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    batches = [*recipe.task.batch(0, 0, 32, recipe.batch), *recipe.task.batch(0, 32, 32, recipe.batch)]

    def run() -> None:
        for batch in batches[:STEPS]:
            loss = nn.functional.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())
            loss.item()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    run()
    return run


def toy_steps(subject: Subject) -> Callable[[], Any]:
    """Ours, the drawing of batches with it."""
    from workbench.loading.toys.recipes import asked
    from workbench.loading.toys.training import Training, alone_on_a_core

    training = Training(asked(_TOY).recipe)

    def run() -> None:
        with alone_on_a_core():
            for _ in range(STEPS):
                training.advance()

    run()
    return run


def looked_at(subject: Subject) -> Callable[[], Any]:
    """The scores of a checkpoint, as a timeline looks at it."""
    from probes import TaskAttention
    from probes.formation.toy_runs import checkpoint
    from workbench.loading.toys.checkpoints import Kept
    from workbench.loading.toys.recipes import asked

    recipe = asked(_TOY).recipe
    Kept(recipe).ensure(0)
    first = checkpoint(recipe, 0)

    def run() -> None:
        TaskAttention().run(checkpoint(recipe, 0, like=first))

    run()
    return run
