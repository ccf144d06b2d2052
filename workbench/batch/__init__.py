"""Experiment batches: many prompts, models and analyses, computed once, kept, and gone on with after any end.

A spec (`spec`) names prompts (`prompts/`), which become token ids; a plan (`survey`, `shards`, `estimate`) deals their
cells into shards of fixed composition. A shard is computed (`computing`) by whoever holds its lease (`leases`), written
into the store (`store`, a folder or an object store by `backing/`) and never computed again, by processes (`engine`) or
actors of a cluster (`cluster`); `values/` makes aggregates of what is there. Read `spec`, `shards`, `engine`, then
`runs`, which a user calls.
"""

from importlib import import_module
from typing import Any

_RUNS = "workbench.batch.runs"
_NAMES = {
    "Batch": (_RUNS, "Batch"), "Cluster": ("workbench.batch.cluster", "Cluster"), "Plan": (_RUNS, "Plan"),
    "open": (_RUNS, "open_batch"), "plan": (_RUNS, "plan"), "run": (_RUNS, "run"), "worker": (_RUNS, "worker"),
}  # fmt: skip

__all__ = ["Batch", "Cluster", "Plan", "open", "plan", "run", "worker"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'workbench.batch' has no attribute {name!r}")
    module, inner = _NAMES[name]
    return getattr(import_module(module), inner)
