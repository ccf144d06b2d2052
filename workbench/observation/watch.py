"""Watch: the hooks of one batch. It collects the activations of a layer until a need is complete, reduces, lets go."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from workbench.errors import InputError, RefusedError
from workbench.models.hooks import ALL_HOOKS, LOGITS, RESID_POST, Hook
from workbench.models.model import Model
from workbench.models.passes import Attached
from workbench.observation.finite import all_finite
from workbench.observation.need import POSITIONAL, Kept, Need, Site, placed
from workbench.pauses import is_pausing, pause

__all__ = ["Call", "NotFired", "NotShown", "Steps", "Stop", "Watch"]


class NotShown(InputError):
    """A model has no activation that a need asks for; said of the reducer, unless `said_of` an analysis."""

    def __init__(self, who: str, hook: str, model: str, has: str):
        self.hook, self.model, self.has = hook, model, has
        super().__init__(
            f"{who}, which needs {hook}", f"one of {has} on {model}",
            "This model has no such activation: leave the analysis out for it",
        )  # fmt: skip

    def said_of(self, analysis: str) -> "NotShown":
        """The same of an analysis, by the name that its user knows."""
        return NotShown(analysis, self.hook, self.model, self.has)

    def __reduce__(self) -> Any:
        return NotShown, (self.got.removesuffix(f", which needs {self.hook}"), self.hook, self.model, self.has)


class NotFired(RefusedError):
    """A hook that a need asks for stayed silent in a pass; said of the reducer, unless `said_of` an analysis."""

    def __init__(self, who: str, what: str):
        self.what = what
        super().__init__(
            what, f"it to fire for {who}",
            "The installed TransformerLens does not show it for this architecture: leave the analysis out",
        )  # fmt: skip

    def said_of(self, analysis: str) -> "NotFired":
        """The same of an analysis, by the name that its user knows."""
        return NotFired(analysis, self.what)

    def __reduce__(self) -> Any:
        return NotFired, (self.expected.removeprefix("it to fire for "), self.what)


class Stop(Exception):
    """Leaves the forward pass after the last layer that is wanted."""


@dataclass
class Steps:
    """Counts finished layers over all batches for the progress callback."""

    prompts: int
    n_layers: int
    done: float = 0.0


@dataclass
class Call:
    """What one call of `observe` asks of every batch; see there."""

    model: Model
    needs: tuple[Need, ...]
    interventions: tuple[Any, ...]
    start: tuple[int, torch.Tensor] | None
    stop: int | None
    progress: Callable[[float], None] | None
    steps: Steps

    @cached_property
    def edited(self) -> Model:
        """The model as reducers see it: it carries the interventions of this pass, too, but those on single rows."""
        return self.model.carrying([i for i in self.interventions if i.rows is None])


class Watch:
    """Hooks of one batch: collects the activations of a layer until a need is complete, reduces it, lets go."""

    def __init__(
        self,
        run: Call,
        ids: torch.Tensor,
        mask: torch.Tensor,
        lengths: torch.Tensor,
        fields: Mapping[str, torch.Tensor],
    ) -> None:
        self.run, self.ids, self.mask, self.lengths, self.fields = run, ids, mask, lengths, fields
        model = run.model
        self.first = run.start[0] if run.start else 0
        self.last = (run.stop if run.stop is not None else model.sizes.n_layers) - 1
        self.waiting: dict[tuple[Need, int | None], dict[Hook, torch.Tensor]] = {}
        self.reduced: dict[tuple[Need, int | None], torch.Tensor] = {}
        self.finite = True
        self.places: dict[
            torch.device, tuple[torch.Tensor, torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]]
        ] = {}

    def layers(self, need: Need) -> list[int | None]:
        """Layers of a need that this pass runs through; [None] for a need outside the blocks.

        InputError for a layer that the model has not, and for a need that this pass does not come by at all.
        """
        what = f"a need on {'/'.join(hook.name for hook in need.hooks)}"
        if not need.layered:
            if self.run.stop is not None:
                raise InputError(what, "a pass that runs to its end", "Leave out stop=")
            return [None]
        n = self.run.model.sizes.n_layers
        asked = need.layers if need.layers is not None else range(n)
        outside = [layer for layer in asked if not 0 <= layer < n]
        if outside:
            raise InputError(f"layer {outside[0]}", f"layers 0 to {n - 1}", "Choose a layer the model has")
        found: list[int | None] = [layer for layer in asked if self.first <= layer <= self.last]
        if not found:
            at = f"layer {', '.join(map(str, asked))}"
            raise InputError(
                f"{what} of {at}", f"one of layers {self.first} to {self.last}", "Change start= or stop=, or the need"
            )
        return found

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Register each hook once, and take all of them back in every case."""
        wanted: dict[tuple[Hook, int | None], list[Need]] = {}
        for need in self.run.needs:
            for layer in self.layers(need):
                for hook in need.hooks:
                    if hook is not LOGITS:
                        wanted.setdefault((hook, layer), []).append(need)
        with Attached(self.run.model) as attached:
            for (hook, layer), needs in wanted.items():
                attached.add(self._point(hook, layer, needs), self._collector(hook, layer, needs))
            attached.add(self.run.model.adapter.point(RESID_POST, self.last), self._look)
            self._tick(attached)
            yield

    def _look(self, activation: torch.Tensor, hook: Any = None) -> None:
        """What is lost in any block is lost in the last state; see `finite`."""
        self.finite = all_finite(activation, self.mask)

    def _point(self, hook: Hook, layer: int | None, needs: list[Need]) -> Any:
        try:
            return self.run.model.adapter.point(hook, layer)
        except KeyError:
            had = [h.name for h in ALL_HOOKS if h is not LOGITS and _has(self.run.model, h)]
            who = f"{needs[0].reduce.__module__}.{needs[0].reduce.__qualname__}"
            raise NotShown(who, hook.name, self.run.model.name, ", ".join(had)) from None

    def _tick(self, attached: Attached) -> None:
        """Progress and a pause after each layer, and the early way out."""
        run, n = self.run, self.run.model.sizes.n_layers
        share = len(self.lengths) / run.steps.prompts / n

        def tick(layer: int) -> Callable[[torch.Tensor, Any], None]:
            def fire(activation: torch.Tensor, hook: Any) -> None:
                run.steps.done += share
                if run.progress is not None:
                    run.progress(min(1.0, run.steps.done))
                pause()
                if run.stop is not None and layer == self.last:
                    raise Stop

            return fire

        asked = run.progress is not None or is_pausing()
        wanted = range(n) if asked else ([self.last] if run.stop is not None else [])
        for layer in wanted:
            attached.add(run.model.adapter.point(RESID_POST, layer), tick(layer))

    def _collector(self, hook: Hook, layer: int | None, needs: list[Need]) -> Callable[..., None]:
        def collect(activation: torch.Tensor, hook: Any = None, _hook: Hook = hook) -> None:
            for need in needs:
                if len(set(need.hooks)) == 1:
                    self._reduce(need, layer, {_hook: activation})
                    continue
                held = self.waiting.setdefault((need, layer), {})
                held[_hook] = activation
                if len(held) == len(set(need.hooks)):  # never of one on logits, which are there last: see `stacked`
                    self._reduce(need, layer, self.waiting.pop((need, layer)))

        return collect

    def _reduce(self, need: Need, layer: int | None, held: dict[Hook, torch.Tensor]) -> None:
        device = next(iter(held.values())).device if layer is None else self.run.model.adapter.place(layer)
        site = self._site(layer, device)  # what a block is given may still lie where the one before it does
        value = need.reduce(*(held[hook].detach().to(device) for hook in need.hooks), site, **dict(need.params))
        if value.ndim != 1 + len(need.dims) or value.shape[0] != len(self.lengths):
            raise InputError(
                f"{need.reduce.__qualname__} returning shape {tuple(value.shape)}",
                f"(batch={len(self.lengths)}, {', '.join(need.dims)})",
                "Declare the axes after batch in Need(dims=...)",
            )
        self.reduced[need, layer] = self._blank_padding(_of_numbers(value), need)

    def _site(self, layer: int | None, device: torch.device) -> Site:
        """What a reducer may know, where its layer's activations are: a model may lie on several devices."""
        if device not in self.places:
            fields = {name: field.to(device) for name, field in self.fields.items()}
            self.places[device] = (self.ids.to(device), self.mask.to(device), self.lengths.to(device), fields)
        return Site(layer, *self.places[device], self.run.edited)

    def _blank_padding(self, value: torch.Tensor, need: Need) -> torch.Tensor:
        """Overwrite what was computed on padding, or at positions that a prompt has not, with NaN (integers: -1)."""
        blank = torch.nan if value.is_floating_point() else -1
        for axis, dim in enumerate(need.dims, start=1):
            if dim not in POSITIONAL:
                continue
            chosen = need.positions if dim == "pos" else None
            mask = (self.mask if chosen is None else placed(chosen, self.lengths)[1]).to(value.device)
            if bool(mask.all()):
                continue
            if value.shape[axis] != mask.shape[1]:
                raise InputError(
                    f"{need.reduce.__qualname__} returning {value.shape[axis]} along {dim}",
                    f"{mask.shape[1]}, so that padding can be told from the prompt",
                    "Fill the axis up, or give it a name that is not of positions",
                )
            shape = [1] * value.ndim
            shape[0], shape[axis] = mask.shape
            value = value.masked_fill(~mask.view(shape), blank)
        return value

    def check(self) -> None:
        """Nothing is worse than a number from a hook that did not fire."""
        for need in self.run.needs:
            for layer in self.layers(need):
                self._fired(need, layer, (need, layer) in self.reduced or LOGITS in need.hooks)

    def _fired(self, need: Need, layer: int | None, did: bool) -> None:
        if not did:
            where = "" if layer is None else f" from layer {layer}"
            what = f"no {'/'.join(h.name for h in need.hooks)}{where} of {self.run.model.name}"
            raise NotFired(f"{need.reduce.__module__}.{need.reduce.__qualname__}", what)

    def stacked(self, need: Need, logits: torch.Tensor | None) -> Kept:
        """Layers of a need on top of each other; needs on logits are reduced here."""
        if LOGITS in need.hooks:
            held = self.waiting.pop((need, None), {})
            if logits is not None:  # a pass that stopped early has none, and `layers` refuses the need
                held[LOGITS] = logits
            self._fired(need, None, set(need.hooks) <= set(held))
            self._reduce(need, None, held)
        values = [self.reduced.pop((need, layer)) for layer in self.layers(need)]
        end = self.run.model.readout.W_U.device  # layers may lie on several devices; what is kept lies at the end
        values = [value.to(end) for value in values]
        if need.ragged and need.layered:
            return tuple(values)
        return torch.stack(values) if need.layered else values[0]


def _of_numbers(value: torch.Tensor) -> torch.Tensor:
    """Half precision widened: numpy has no bfloat16, files no float16, and a mean over prompts needs the digits."""
    return value.float() if value.is_floating_point() and value.dtype.itemsize < 4 else value


def _has(model: Model, hook: Hook) -> bool:
    try:
        return model.adapter.point(hook, 0 if hook.layered else None) is not None
    except KeyError:
        return False
