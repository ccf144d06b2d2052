"""What a thread is set to, which decides the last bits of what it computes: training a toy sets other things."""

from dataclasses import dataclass

import torch

__all__ = ["Surroundings"]


@dataclass(frozen=True)
class Surroundings:
    """Of one thread. flushing: whether numbers too small to be normal are zero."""

    threads: int
    gradients: bool
    flushing: bool

    @classmethod
    def now(cls) -> "Surroundings":
        """Of this thread."""
        flushing = not bool((torch.tensor([1e-38]) * 0.01).item())
        return cls(torch.get_num_threads(), torch.is_grad_enabled(), flushing)

    def restore(self) -> None:
        """Set this thread to them."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        torch.set_grad_enabled(self.gradients)
        torch.set_flush_denormal(self.flushing)
