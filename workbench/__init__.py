"""The instrument: models, one observed forward pass, interventions, labelled results.

    from workbench import load, observe, run

What a user types is here; the rest is imported from its room (see `docs/architecture.md`). Names are imported when
first used, so that `import workbench` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# `__init__.pyi` says the same to editors and type checkers; a test holds the two equal.
_HOMES = {
    "workbench.loading.pretrained": ("load", "wrap"),
    "workbench.models.model": ("Model",),
    "workbench.models.prompt": ("Prompt",),
    "workbench.observation": ("Need", "Observation", "Site", "keep", "observe"),
    "workbench.observation.recording": ("measure_means", "record"),
    "workbench.analysis.run": ("run",),
    "workbench.analysis.results": ("dataset", "open_result", "save"),
    "workbench.storage.tables": ("tables",),
    "workbench.analysis.compare": ("difference",),
    "workbench.intervene": (
        "Ablate", "Add", "Attend", "Clamp", "Force", "Knockout", "Patch", "Scale", "Steer",
        "Attention", "AttentionEdge", "AttentionKey", "Expert", "ExpertNeurons", "Head", "MLP", "Neurons", "Residual",
    ),
    # what can be watched and patched, by the field's names
    "workbench.models.hooks": (
        "ATTN_OUT", "EXPERT_WEIGHT", "K", "LOGITS", "MLP_OUT", "MLP_POST", "PATTERN", "Q", "RESID_MID", "RESID_POST",
        "RESID_PRE", "ROUTER", "SCORES", "V", "Z", "expert_post",
    ),
    "workbench.card": ("model_card",),
    "workbench.records": ("read_pairs", "read_prompts"),
    "workbench.errors": ("WorkbenchError",),
}  # fmt: skip
WHERE = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(WHERE)


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    return getattr(import_module(WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
