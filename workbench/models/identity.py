"""Which weights a model has, and in which form."""

from dataclasses import dataclass
from hashlib import sha256

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity:
    """Which weights, in which form: enough to tell two results apart.

    weights_hash: sha256 over names, shapes, dtypes and bytes of every parameter. settings_hash: over what else decides
    numbers: configuration, buffers, settings of modules (`loading.settings`). processing: "raw" (as published; the
    default) or "folded". badge: a sentence to show with every number, or "".
    """

    name: str
    weights_hash: str
    revision: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    attention: str = "eager"
    architecture: str = ""
    processing: str = "raw"
    badge: str = ""
    settings_hash: str = ""

    @property
    def key(self) -> str:
        """64 hex digits of weights and settings: models of one key give the same numbers."""
        return sha256(f"{self.weights_hash} {self.settings_hash}".encode()).hexdigest()
