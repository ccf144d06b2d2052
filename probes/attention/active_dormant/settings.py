"""What the study can be asked."""

from dataclasses import dataclass

__all__ = ["BATCH_TOKENS", "MIN_TEXTS", "Settings"]

MIN_TEXTS = 10  # of a domain, for a contrast
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Settings:
    """Params of the study. epsilon: of the sink set. attention_above, output_below: what counts as dormant.

    leading: heads whose attention to sinks differs most, to ablate too, of those that pass for that.
    """

    texts: int = 50
    length: int = 128
    epsilon: float = 0.3
    attention_above: float = 0.8
    output_below: float = 0.2
    ablate: str = "candidates"
    ablation_texts: int = 16
    leading: int = 3
    random_heads: int = 20
    seed: int = 0
