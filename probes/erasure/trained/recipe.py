"""How probes are fitted, in numbers; without torch, since the shell reads them for its options."""

from dataclasses import dataclass
from typing import Any

from workbench.errors import InputError

__all__ = ["KINDS", "LINEAR_LR", "OFFSETS", "SAID", "Recipe", "recommended_depths"]

KINDS = ("factored", "linear")
OFFSETS = (0, -1, -2)  # what psi is made of
SAID = {
    "factored": "readout probes, factored through the unembedding",
    "linear": "readout probes, plain softmax over the tokens of the corpus, without bias",
}
LINEAR_LR = 1e-2  # of 1e-3, 3e-3, 1e-2 and 3e-2 the best log-likelihood on validation text (depth 2, offset -1)


@dataclass(frozen=True)
class Recipe:
    """How probes are fitted. batch: states per step. dtype: of the products with the vocabulary; "auto" measures.

    kind: "factored" through the unembedding, or "linear", one column of weights for each class.
    """

    epochs: int = 3
    lr: float = 5e-4
    batch: int = 1024
    seed: int = 0
    dtype: str = "auto"
    kind: str = "factored"

    @classmethod
    def of(cls, kind: str, **more: Any) -> "Recipe":
        """The recommended recipe of a kind; InputError for an unknown one."""
        if kind not in KINDS:
            raise InputError(f"probes of the kind {kind!r}", f"one of {', '.join(KINDS)}", "Choose one of these")
        return cls(kind=kind, **({"lr": LINEAR_LR} if kind == "linear" else {}) | more)


def recommended_depths(n_layers: int) -> tuple[int, int]:
    """Two depths to compare: early (the previous token is readable) and after the last-token drop.

    Measured on the default model (2 and 20 of 30); other models get the same shares of their layers.
    """
    early = max(1, round(n_layers * 2 / 30))
    return early, max(early + 1, round(n_layers * 20 / 30))
