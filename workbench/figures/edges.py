"""The edges of a token lattice: read from an edge table, merged over heads, and laid out."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from workbench.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["KINDS", "Edge", "merged_edges"]

_COLUMNS = ("kind", "edge_layer", "edge_query", "edge_key", "edge_head", "weight")
KINDS = ("attention", "mlp", "resid_attn", "resid_mlp")
_BOW = 0.22  # how far an edge that stays on its token leans aside, in tokens


class Edge(NamedTuple):
    """One drawn edge: all heads of a (layer, query, key) together.

    weight: summed over heads, a share. heads: (head, weight), the strongest first; empty where no head is named.
    """

    kind: str
    layer: int
    query: int
    key: int
    weight: float
    heads: tuple[tuple[int, float], ...]

    @property
    def lean(self) -> float:
        """How far the middle stands aside, in tokens: an MLP to the left, attention to oneself to the right."""
        if self.kind == "mlp":
            return -_BOW
        return _BOW if self.kind == "attention" and self.key == self.query else 0.0

    @property
    def foot(self) -> float:
        """Height of the lower end. Attention and the residual past it end at layer + 1/2, the others at layer + 1."""
        return self.layer + (0.5 if self.kind in ("mlp", "resid_mlp") else 0.0)

    def middle(self, column: Mapping[int, float]) -> tuple[float, float]:
        """The drawn middle (x, y). column: where each position stands."""
        return round((column[self.key] + column[self.query]) / 2 + self.lean, 2), self.foot + 0.25

    def path(self, column: Mapping[int, float]) -> list[tuple[float, float]]:
        """The drawn line, bent at its middle where it leans aside."""
        bend = [self.middle(column)] if self.lean else []
        return [(column[self.key], self.foot), *bend, (column[self.query], self.foot + 0.5)]


def merged_edges(table: "Mapping[str, Sequence[Any]] | xr.Dataset") -> Iterator[Edge]:
    """The edges of a table of columns, heads between the same two tokens of a layer merged; see `token_lattice`."""
    columns = {name: np.asarray(table[name]).tolist() for name in _COLUMNS if name != "edge_head"}
    given = table["edge_head"] if "edge_head" in table else [-1] * len(columns["kind"])
    columns["edge_head"] = np.asarray(given).tolist()
    _need_columns(columns)
    rows = []
    for kind, layer, query, key, head, weight in zip(*(columns[name] for name in _COLUMNS), strict=True):
        rows.append((kind, layer, query, key if kind == "attention" else query, head, weight))  # the others stay there
    for (kind, layer, query, key), members in groupby(sorted(rows), key=itemgetter(0, 1, 2, 3)):
        heads = [(head, weight) for *_, head, weight in members]
        named = sorted(((head, weight) for head, weight in heads if head >= 0), key=lambda pair: -pair[1])
        yield Edge(kind, layer, query, key, sum(weight for _, weight in heads), tuple(named))


def _need_columns(columns: Mapping[str, Sequence[Any]]) -> None:
    unknown = sorted(set(columns["kind"]) - set(KINDS))
    if unknown:
        raise InputError(f"edges of kind {', '.join(unknown)}", f"kinds among {', '.join(KINDS)}", "Name the kinds so")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"edge columns of lengths {lengths}", "equally long columns", "Check the edge table")
