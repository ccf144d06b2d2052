"""Experiment batches: many prompts, models and analyses, computed once, kept, and gone on with after any end.

A spec (`spec`) names prompts (`prompts/`), which become token ids; a plan (`survey`, `shards`, `estimate`) deals their
cells into shards of fixed composition. A shard is computed (`computing`) by whoever holds its lease (`leases`), written
into the store (`store`) and never computed again; `values/` makes aggregates of what is there. Read `spec`, `shards`,
`engine`, then `runs`, which a user calls.
"""

from importlib import import_module
from typing import Any

_HOME = "workbench.batch.runs"
_NAMES = {"Batch": "Batch", "Plan": "Plan", "open": "open_batch", "plan": "plan", "run": "run", "worker": "worker"}

__all__ = ["Batch", "Plan", "open", "plan", "run", "worker"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'workbench.batch' has no attribute {name!r}")
    return getattr(import_module(_HOME), _NAMES[name])
