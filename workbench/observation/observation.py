"""Observation: what one observed pass left behind."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import torch
import xarray as xr

from workbench.arguments import argument
from workbench.errors import InputError, RefusedError
from workbench.models.model import ExpertWeights, Identity, LayerWeights, Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.readout import Readout
from workbench.models.vocabulary import Vocabulary
from workbench.observation.need import POSITIONAL, Kept, Need

__all__ = ["Observation"]


@dataclass(eq=False)
class Observation:
    """What one observed pass left behind.

    `observation[need]` is a float32 tensor `[layer, prompt, *need.dims]` (no `layer` for needs outside the blocks), NaN
    where a prompt is shorter than the longest; for a ragged need, a tuple of one `[prompt, *need.dims]` per layer.
    `logits[i]` is `[position, d_vocab]` for prompt i at the positions asked for (`positions[i]`). `ran`: the layers
    that the pass ran through, all unless it started or stopped inside the model. `interventions` and `identity` go into
    provenance; `vocabulary` names tokens; `weights(layer)`, `readout` and
    `expert_weights(layer, expert)` are the model's, read-only: RefusedError once its weights have been changed in
    place, since states of other weights are not theirs to read out.
    """

    identity: Identity
    sizes: Sizes
    vocabulary: Vocabulary = field(repr=False)
    tokens: tuple[Tokens, ...]
    results: dict[Need, Kept] = field(repr=False)
    logits: tuple[torch.Tensor, ...] = field(repr=False)
    positions: tuple[tuple[int, ...], ...]
    fields: Mapping[str, torch.Tensor] = field(repr=False)
    interventions: tuple[Any, ...]
    model: Model = field(repr=False)
    ran: range
    _marks: tuple[tuple[torch.Tensor, int, int], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self._marks:  # looked for once: the adapter's modules are its own, where nobody replaces a tensor
            self._marks = tuple((tensor, *_mark(tensor)) for _, tensor in self.model.adapter.parameters())

    @property
    def readout(self) -> Readout:
        """Final norm and unembedding."""
        self._need_unchanged()
        return self.model.readout

    def weights(self, layer: int) -> LayerWeights:
        """Weights of one layer, where what is kept lies."""
        self._need_unchanged()
        return self.model.weights(layer).on(self.model.readout.W_U.device)

    def expert_weights(self, layer: int, expert: int) -> ExpertWeights:
        """Weights of one expert of a mixture, where what is kept lies."""
        self._need_unchanged()
        return self.model.expert_weights(layer, expert).on(self.model.readout.W_U.device)

    def _need_unchanged(self) -> None:
        if any(_mark(tensor) != (place, count) for tensor, place, count in self._marks):
            raise RefusedError(
                f"an observation of {self.identity.name}, whose weights have been changed since",
                "the weights that it was made with", "Observe the prompt again",
            )  # fmt: skip

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RefusedError(
            f"an observation of {self.identity.name} to be pickled or copied",
            "what is kept: it holds the model", "Save what an analysis makes of it, or observation[need]",
        )  # fmt: skip

    def __getitem__(self, need: Need) -> torch.Tensor:
        argument("need", need, Need, "Observation")
        try:
            return cast(torch.Tensor, self.results[need])  # who has a ragged need knows that it is a tuple
        except KeyError:
            raise InputError(
                f"a need that was not observed ({need.reduce.__qualname__} of {need.hooks})",
                f"one of {[n.reduce.__qualname__ for n in self.results]}",
                "Return it from needs(), with the same params",
            ) from None

    def __contains__(self, need: Need) -> bool:
        return need in self.results

    def array(self, need: Need) -> xr.DataArray:
        """The same as `observation[need]`, with named dims and integer coords; InputError for a ragged need."""
        kept = self[need]
        if isinstance(kept, tuple):
            raise InputError(
                f"an array of {need.reduce.__qualname__}, whose length differs from layer to layer",
                "a need with layers of one length",
                "Take observation[need], one tensor per layer",
            )
        dims = ("layer", "prompt", *need.dims) if need.layered else ("prompt", *need.dims)
        coords = {"layer": self.layers(need)} if need.layered else {}
        return xr.DataArray(kept.cpu().numpy(), dims=dims, coords=coords)

    def layers(self, need: Need) -> list[int]:
        """The layers of a need that the pass ran through, in the order in which they are stacked."""
        argument("need", need, Need, "Observation")
        asked = range(self.sizes.n_layers) if need.layers is None else need.layers
        return [layer for layer in asked if layer in self.ran]

    def prompt(self, row: int) -> "Observation":
        """One prompt of several, as if it had been observed by itself: its row of everything, without padding.

        Only ragged needs stay as long as the longest of the prompts, with NaN at the end, and needs at positions hold
        all that were asked for, with NaN where this prompt has none. Interventions are those of its row.
        """
        row = argument("row", row, int, "Observation")
        if not 0 <= row < len(self.tokens):
            raise InputError(f"prompt {row}", f"0 to {len(self.tokens) - 1}", "Choose one that was observed")
        n_pos = len(self.tokens[row])

        def of_row(need: Need, kept: Kept) -> Kept:
            if isinstance(kept, tuple):  # ragged: one tensor per layer
                return tuple(layer[row : row + 1] for layer in kept)
            kept = kept.narrow(int(need.layered), row, 1)
            for axis, dim in enumerate(need.dims, start=1 + need.layered):
                if dim in POSITIONAL and not (dim == "pos" and need.positions is not None):
                    kept = kept.narrow(axis, 0, min(n_pos, kept.shape[axis]))  # one prompt may have been padded to it
            return kept

        this = slice(row, row + 1)
        return replace(
            self,
            tokens=self.tokens[this],
            results={need: of_row(need, kept) for need, kept in self.results.items()},
            logits=self.logits[this],
            positions=self.positions[this],
            fields={name: values[this] for name, values in self.fields.items()},
            interventions=tuple(_of_row(self.interventions, row)),
        )

    @cached_property
    def log_probs(self) -> tuple[torch.Tensor, ...]:
        """Log-probabilities (nats) of the next token at the asked positions, `[position, d_vocab]` per prompt."""
        return tuple(logits.float().log_softmax(-1) for logits in self.logits)


def _of_row(interventions: Iterable[Any], row: int) -> Iterator[Any]:
    """Those that one row of a call had, as if it had been alone."""
    for one in interventions:
        rows = getattr(one, "rows", None)
        if rows is None:
            yield one
        elif row in rows:
            yield replace(one, rows=None)


def _mark(tensor: torch.Tensor) -> tuple[int, int]:
    """Where a tensor of weights lies and how often it was written to."""
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version
