"""The graph of a model: sources, targets, and the edges from every source to every later target.

Sources write to the residual stream: the embedding (`input`), heads (`a3.h1`), MLPs (`m3`). Targets read it: each head
three times (`a3.h1<q>`, `<k>`, `<v>`), MLPs, and what is read out (`logits`). What a target reads is the sum of its
sources, so that one edge can be changed alone. The heads of a layer lead to its MLP, unless the block is parallel.
Heads are query heads, also where they share keys and values.

Source: names and edges of arXiv 2504.13151 (MIB) and arXiv 2403.17806.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workbench.errors import InputError
from workbench.models.model import Sizes

__all__ = ["Graph"]


@dataclass(frozen=True)
class Graph:
    """Nodes and edges of a model of these sizes.

    Scores of edges are arrays `[source, target]`, circuits masks of the same shape; both only count where `exists`.
    """

    n_layers: int
    n_heads: int
    mlps: bool = True
    parallel: bool = False

    @classmethod
    def of(cls, sizes: Sizes) -> "Graph":
        """The graph of a model."""
        return cls(sizes.n_layers, sizes.n_heads, bool(sizes.d_mlp), sizes.parallel)

    @property
    def _each(self) -> int:
        """Sources of a layer."""
        return self.n_heads + self.mlps

    @property
    def _reading(self) -> int:
        """Targets of a layer."""
        return 3 * self.n_heads + self.mlps

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of sources and targets."""
        return 1 + self.n_layers * self._each, self.n_layers * self._reading + 1

    def sources_before(self, layer: int) -> int:
        """How many sources stand in front of a layer's attention; of `n_layers`: all."""
        return 1 + layer * self._each

    def sources_of_mlp(self, layer: int) -> int:
        """How many its MLP reads."""
        return self.sources_before(layer) + (0 if self.parallel else self.n_heads)

    def heads(self, layer: int) -> slice:
        """The sources that are heads of a layer."""
        return slice(self.sources_before(layer), self.sources_before(layer) + self.n_heads)

    def mlp(self, layer: int) -> int:
        """The source that is its MLP."""
        return self.sources_before(layer) + self.n_heads

    def inputs(self, layer: int) -> slice:
        """The targets in a layer's attention: queries, then keys, then values, by head."""
        return slice(layer * self._reading, layer * self._reading + 3 * self.n_heads)

    def mlp_input(self, layer: int) -> int:
        """The target that is its MLP's input."""
        return layer * self._reading + 3 * self.n_heads

    @cached_property
    def exists(self) -> np.ndarray:
        """Which edges there are, bool `[source, target]`."""
        found = np.zeros(self.shape, bool)
        for layer in range(self.n_layers):
            found[: self.sources_before(layer), self.inputs(layer)] = True
            if self.mlps:
                found[: self.sources_of_mlp(layer), self.mlp_input(layer)] = True
        found[:, -1] = True
        return found

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return int(self.exists.sum())

    @cached_property
    def node_of(self) -> np.ndarray:
        """The source behind each target (its queries, keys and values lead to a head); -1 behind the logits."""
        found = np.full(self.shape[1], -1)
        for layer in range(self.n_layers):
            heads = self.heads(layer)
            found[self.inputs(layer)] = np.tile(np.arange(heads.start, heads.stop), 3)
            if self.mlps:
                found[self.mlp_input(layer)] = self.mlp(layer)
        return found

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)] + [f"m{layer}"] * self.mlps
        return tuple(names)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        names = []
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}<{what}>" for what in "qkv" for head in range(self.n_heads)]
            names += [f"m{layer}"] * self.mlps
        return (*names, "logits")

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        rows, columns = np.nonzero(self.exists)
        return {self.name(r, c): (r, c) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)}

    def name(self, source: int, target: int) -> str:
        """Of an edge, such as `m0->a1.h2<q>`."""
        return f"{self.sources[source]}->{self.targets[target]}"

    def names(self, mask: np.ndarray) -> list[str]:
        """Of all edges of a circuit."""
        return [self.name(r, c) for r, c in np.argwhere(self.checked(mask)).tolist()]

    def place(self, name: str) -> tuple[int, int]:
        """Source and target of an edge by its name; InputError where there is none."""
        if name not in self._places:
            raise InputError(f"the edge {name!r}", f"one such as {next(iter(self._places))!r}", "Correct the name")
        return self._places[name]

    def circuit(self, edges: Iterable[str]) -> np.ndarray:
        """A mask of edges by their names."""
        mask = np.zeros(self.shape, bool)
        for edge in edges:
            mask[self.place(edge)] = True
        return mask

    def checked(self, mask: np.ndarray) -> np.ndarray:
        """A circuit of this graph; InputError for another shape, or edges that there are not."""
        mask = np.asarray(mask, bool)
        if mask.shape != self.shape or (mask & ~self.exists).any():
            raise InputError(f"a circuit of shape {mask.shape}", f"edges of a graph of {self.shape}", "Correct it")
        return mask

    def pruned(self, mask: np.ndarray) -> np.ndarray:
        """The edges of a circuit that lie on a way from the input to the logits.

        An edge stays if its source is reached from the input and its target leads to the logits; a head is reached by
        any of its inputs.
        """
        mask = self.checked(mask).copy()
        reached = np.zeros(self.shape[0], bool)
        reached[0] = True
        for source in range(1, self.shape[0]):  # in the order of the pass
            reached[source] = (mask[:, self.node_of == source] & reached[:, None]).any()
        mask &= reached[:, None]
        leads = np.zeros(self.shape[0], bool)
        for source in reversed(range(self.shape[0])):
            ends = mask[source]
            leads[source] = ends[-1] or leads[self.node_of[:-1][ends[:-1]]].any()
        wanted = np.append(leads[self.node_of[:-1]], True)
        return mask & wanted & leads[:, None]

    def of_nodes(self, nodes: np.ndarray) -> np.ndarray:
        """The circuit of all edges between these sources, bool `[source]`, and the logits; the input is always in."""
        nodes = np.asarray(nodes, bool).copy()
        nodes[0] = True
        return self.exists & nodes[:, None] & np.append(nodes[self.node_of[:-1]], True)
