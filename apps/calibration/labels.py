"""How often models with random weights are given a label, which they never deserve."""

from apps.calibration.checks import random_prompt
from apps.calibration.counts import Counts
from probes.attention.induction.induction_heads import InductionHeads
from probes.attention.sinks.attention_sinks import AttentionSinks
from workbench.models.model import Model

__all__ = ["count_labels"]

_LABELS = ("is_induction_head", "is_previous_token_head", "is_duplicate_token_head")


def count_labels(counts: Counts, weights: str, model: Model, seed: int) -> None:
    """Models with at least one head of a label, and heads; sinks on prompts of 8 and of 64 random tokens."""
    result = InductionHeads(seed=seed).run(model)
    for name in _LABELS:
        called = result[name].values
        label = name.removeprefix("is_").replace("_", " ")
        counts.add("labels", f"{weights}: {label}", "models with one", int(called.any()), 1)
        counts.add("labels", f"{weights}: {label}", "heads", called.sum(), called.size)
    for n_tokens in (8, 64):
        sink = AttentionSinks().run(model, random_prompt(model, seed, n_tokens))["sink"].values
        row = f"{weights}: sink, {n_tokens} tokens"
        counts.add("labels", row, "models with one", int((sink == 1).any()), 1)
        counts.add("labels", row, "heads", (sink == 1).sum(), sink.size)
