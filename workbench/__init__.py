"""The instrument: models, one observed forward pass, interventions, labelled results.

    from workbench import load, observe, Prompt

Names are imported when first used, so that `import workbench` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "workbench.analysis.compare": ("align", "difference", "difference_figure"),
    "workbench.analysis.legacy": ("Entry", "LegacyCatalog", "Param", "Stimulus", "run"),
    "workbench.errors": (
        "Cancelled", "InputError", "RefusedError", "SlowWarning", "UnavailableError", "WorkbenchError",
    ),
    "workbench.models.hooks": (
        "ATTN_OUT", "ATTN_RESULT", "LOGITS", "MLP_OUT", "MLP_POST", "PATTERN", "Q", "K", "RESID_MID", "RESID_POST",
        "RESID_PRE", "ROT_K", "ROT_Q", "SCORES", "V", "Z", "Hook",
    ),
    "workbench.intervene": (
        "Ablate", "Add", "Attention", "AttentionEdge", "AttentionKey", "Clamp", "FreezeNormScale", "FreezePatterns",
        "Head", "Knockout", "MLP", "Neurons", "Patch", "Residual", "Steer", "units_of",
    ),
    "workbench.loading.pretrained": ("load", "wrap"),
    "workbench.models.model": ("Model",),
    "workbench.observation": ("Need", "Observation", "Site", "keep", "observe"),
    "workbench.models.prompt": ("Prompt", "Tokens", "tokenise"),
    "workbench.models.readout": ("Readout",),
    "workbench.observation.recording": ("measure_means", "record"),
    "workbench.analysis.results": ("dataset", "open_result", "save"),
}  # fmt: skip
WHERE = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(WHERE)


def __getattr__(name: str):
    if name not in WHERE:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    return getattr(import_module(WHERE[name]), name)


def __dir__():
    return sorted([*globals(), *__all__])
