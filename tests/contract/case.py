"""A view on a small model, with what its run left behind: what every check is given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
import torch
import xarray as xr
from torch.optim.optimizer import register_optimizer_step_pre_hook

from workbench.analysis.kinds import OnModel
from workbench.analysis.view import View
from workbench.intervene import Ablate, Head
from workbench.loading.bridge import BridgeAdapter
from workbench.loading.toys.adapter import ToyAdapter
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.observation import Need
from workbench.observation.watch import Watch
from workbench.pauses import pausing

# Tokens repeat, so that analyses of repeats have something to say; 24 positions, more than the sliding window of 8.
LONG = Prompt.ids([0, *[7, 31, 64, 12, 90, 45, 7, 31, 64, 12, 90, 45, 3, 18, 77, 3, 18, 52, 7, 31, 9, 9, 60]])
# Padding is token 0, which this one holds too: an analysis that looks behind the mask finds a repeat there.
SHORT = Prompt.ids([0, *[7, 31, 64, 0, 90, 7, 31, 64, 12, 90]])
SELECTION = {"layer": 1, "head": 1, "depth": 1, "pos": 3, "query": 5, "key": 2, "unit": 4, "prompt": 0, "rank": 0}
SELECTION |= {"component": 1, "neuron": 4}
EDIT = Ablate(Head(0, 1))


def hooks_left(model: Model) -> int:
    """Hooks anywhere in the model."""
    bridged = hasattr(model.adapter, "bridge")
    modules = model.adapter.bridge.hook_dict.values() if bridged else model.adapter.module.modules()
    points = [point for point in modules if hasattr(point, "fwd_hooks")]
    return sum(len(p.fwd_hooks) + len(p.bwd_hooks) + len(p._forward_hooks) + len(p._forward_pre_hooks) for p in points)


def plain_logits(model: Model, tokens: Sequence[Tokens]) -> torch.Tensor:
    """Without observing anything."""
    with torch.no_grad(), model.lock:
        return model.adapter.forward(torch.tensor([t.ids for t in tokens]))


@dataclass(eq=False)
class Case:
    """A view on a model. quick: parameters that make it small."""

    view: View
    model: Model
    quick: dict[str, Any] = field(default_factory=dict)
    views_kept: list[Need] = field(default_factory=list)  # needs whose reducers returned views of activations
    told: list[float] = field(default_factory=list)
    pauses: int = 0
    longest: int = 0  # passes, or steps of training, between two pauses
    since: int = 0

    @cached_property
    def analysis(self) -> Any:
        """With quick parameters."""
        return self.view.analysis.of(self.quick)

    @property
    def prompt(self) -> Prompt | None:
        """Analyses that do not depend on the prompt are given none."""
        return LONG if self.analysis.prompted else None

    @cached_property
    def result(self) -> xr.Dataset:
        """Computed once; what it left behind is kept for the checks of it."""
        before, bare = hooks_left(self.model), plain_logits(self.model, [tokenise(self.model, SHORT)])
        plain = Watch._reduce

        def watched(watch: Watch, need: Need, layer: int | None, held: dict) -> None:
            plain(watch, need, layer, held)
            kept = watch.reduced[need, layer].untyped_storage().data_ptr()
            self.views_kept.extend(need for given in held.values() if given.untyped_storage().data_ptr() == kept)

        with pytest.MonkeyPatch.context() as patch, self._counting(patch):
            patch.setattr(Watch, "_reduce", watched)
            found = self.analysis.run(self.model, self.prompt, progress=self.told.append)
        assert hooks_left(self.model) == before
        assert torch.equal(plain_logits(self.model, [tokenise(self.model, SHORT)]), bare)
        return found

    @contextmanager
    def _counting(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Count what is done between two pauses, on whatever model."""

        def counted(forward: Any) -> Any:
            def call(adapter: Any, ids: Any) -> Any:
                self._did()
                return forward(adapter, ids)

            return call

        def between() -> None:
            self.pauses, self.since = self.pauses + 1, 0

        for adapter in (BridgeAdapter, ToyAdapter):
            patch.setattr(adapter, "forward", counted(adapter.forward))
        handle = register_optimizer_step_pre_hook(lambda *given: self._did())
        try:
            with pausing(between):
                yield
        finally:
            handle.remove()

    def _did(self) -> None:
        self.since += 1
        self.longest = max(self.longest, self.since)

    def asked(self) -> tuple[tuple[Tokens, ...], tuple[Need, ...], dict[str, Any]]:
        """What one that shares the pass, or brings one, observes: tokens, needs and fields."""
        if isinstance(self.analysis, OnModel):
            made = self.analysis.stimulus(self.model)
            return made.tokens, self.analysis.needs(self.model, made.tokens), dict(made.fields)
        tokens = tokenise(self.model, LONG)
        return (tokens,), tuple(self.analysis.needs(self.model, tokens)), {}
