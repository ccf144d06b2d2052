"""What people put beside a weight, which then is not all that a module does."""

import torch
from torch import nn


class Beside(nn.Module):
    """A linear map with a low-rank one beside it, as people write them by hand; its weight is the map's alone."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = base
        self.down = nn.Parameter(0.3 * torch.randn(4, base.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(base.out_features, 4))

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T
