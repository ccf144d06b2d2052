"""One forward pass that feeds every analysis.

An analysis says what it must see of a layer and how to shrink it (`Need`). `observe()` takes the union of all needs,
watches each activation once, reduces a need as soon as its last activation of the layer has arrived, and drops the
inputs: extra memory is one layer's. Watching changes nothing: the logits are bit-equal to an unobserved pass of the
same batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import xarray as xr

from workbench.errors import InputError, RefusedError
from workbench.hooks import ALL_HOOKS, LOGITS, RESID_POST, RESID_PRE, Hook
from workbench.intervene import hooks
from workbench.models.model import Identity, LayerWeights, Model, Sizes
from workbench.prompt import Prompt, Tokens, Vocabulary, tokenise

__all__ = ["Need", "Observation", "Site", "keep", "observe", "predict_bytes"]

_POSITIONAL = ("pos", "query", "key")
_RAGGED = "edge"  # an axis whose length no declaration knows: it differs from layer to layer
_TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, eq=False)
class Site:
    """What a reducer may know besides the activations.

    layer: None for hooks outside the blocks. tokens, mask `[batch, pos]` (mask is False on padding), lengths `[batch]`.
    fields: per-row data of the stimulus, tensors `[batch, ...]`. weights: read-only, of this layer.
    """

    layer: int | None
    tokens: torch.Tensor
    mask: torch.Tensor
    lengths: torch.Tensor
    fields: Mapping[str, torch.Tensor]
    model: Model = field(repr=False)

    @property
    def weights(self) -> LayerWeights:
        """Weights of this layer."""
        return self.model.weights(self.layer)


@dataclass(frozen=True)
class Need:
    """What an analysis must see of a layer, and how to shrink it.

    hooks: activations the reducer takes, in order. reduce: a pure module-level function
    `(*activations, site, **params) -> tensor [batch, *dims]`, float32 or integer, a fresh tensor; it writes to nothing
    and calls no module. dims: names of the output's axes after batch, by the glossary; axes named pos, query or key
    are as long as the batch, and their padding is overwritten with NaN; an axis named edge may have any length, its
    missing end NaN (integers: -1), and layers are then not stacked. params: scalars, or tuples of scalars.
    layers: which ones, or None for all.
    """

    hooks: tuple[Hook, ...]
    reduce: Callable[..., torch.Tensor]
    dims: tuple[str, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()
    layers: tuple[int, ...] | None = None

    def __post_init__(self):
        put = object.__setattr__
        if isinstance(self.dims, str):
            put(self, "dims", tuple(self.dims.split()))
        if isinstance(self.params, Mapping):
            put(self, "params", tuple(sorted(self.params.items())))
        if self.layers is not None:
            put(self, "layers", tuple(self.layers))
        if "<lambda>" in self.reduce.__qualname__ or "<locals>" in self.reduce.__qualname__:
            raise InputError(
                f"the reducer {self.reduce.__qualname__}",
                "a function at the top of a module",
                "Move it there: needs are compared",
            )
        if not self.hooks or not all(isinstance(hook, Hook) for hook in self.hooks):
            raise InputError(f"hooks {self.hooks!r}", "hooks such as PATTERN or RESID_POST", f"Choose from {ALL_HOOKS}")
        if len({hook.layered for hook in self.hooks}) > 1:
            raise InputError(f"hooks {self.hooks!r} in one need", "all inside blocks or all outside", "Split the need")

    @property
    def layered(self) -> bool:
        """Whether the need is met once per layer."""
        return self.hooks[0].layered

    @property
    def ragged(self) -> bool:
        """Whether what is kept has another length in every layer."""
        return _RAGGED in self.dims


def keep(activation: torch.Tensor, site: Site, positions: tuple[int, ...] | None = None) -> torch.Tensor:
    """A reducer that keeps an activation `[batch, pos, ...]` as float32, at all or some positions."""
    if positions is not None:
        activation = activation[:, list(positions)]
    return activation.detach().to(torch.float32, copy=True)


@dataclass(eq=False)
class Observation:
    """What one observed pass left behind.

    `observation[need]` is a float32 tensor `[layer, prompt, *need.dims]` (no `layer` for needs outside the blocks), NaN
    where a prompt is shorter than the longest; for a ragged need, a tuple of one `[prompt, *need.dims]` per layer.
    `logits[i]` is `[position, d_vocab]` for prompt i at the positions asked for (`positions[i]`). `interventions` and
    `identity` go into provenance; `vocabulary` names tokens; `weights(layer)` are the model's, read-only.
    """

    identity: Identity
    sizes: Sizes
    vocabulary: Vocabulary = field(repr=False)
    tokens: tuple[Tokens, ...]
    results: dict[Need, torch.Tensor] = field(repr=False)
    logits: tuple[torch.Tensor, ...] = field(repr=False)
    positions: tuple[tuple[int, ...], ...] = ()
    fields: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    interventions: tuple = ()
    weights: Callable[[int], LayerWeights] | None = field(default=None, repr=False)

    def __getitem__(self, need: Need) -> torch.Tensor:
        try:
            return self.results[need]
        except KeyError:
            raise InputError(
                f"a need that was not observed ({need.reduce.__qualname__} of {need.hooks})",
                f"one of {[n.reduce.__qualname__ for n in self.results]}",
                "Return it from needs(), with the same params",
            ) from None

    def __contains__(self, need: Need) -> bool:
        return need in self.results

    def array(self, need: Need) -> xr.DataArray:
        """The same as `observation[need]`, with named dims and integer coords."""
        dims = ("layer", "prompt", *need.dims) if need.layered else ("prompt", *need.dims)
        coords = {"layer": list(need.layers or range(self.sizes.n_layers))} if need.layered else {}
        return xr.DataArray(self[need].cpu().numpy(), dims=dims, coords=coords)

    def prompt(self, row: int) -> "Observation":
        """One prompt of several, as if it had been observed by itself: its row of everything, without padding.

        Only ragged needs stay as long as the longest of the prompts, with NaN at the end.
        """
        n_pos = len(self.tokens[row])

        def of_row(need: Need, kept):
            if isinstance(kept, tuple):  # ragged: one tensor per layer
                return tuple(layer[row : row + 1] for layer in kept)
            kept = kept.narrow(int(need.layered), row, 1)
            for axis, dim in enumerate(need.dims, start=1 + need.layered):
                if dim in _POSITIONAL:  # a need may hold fewer positions than there are
                    kept = kept.narrow(axis, 0, min(n_pos, kept.shape[axis]))
            return kept

        this = slice(row, row + 1)
        return replace(
            self,
            tokens=self.tokens[this],
            results={need: of_row(need, kept) for need, kept in self.results.items()},
            logits=self.logits[this],
            positions=self.positions[this],
        )

    @cached_property
    def log_probs(self) -> tuple[torch.Tensor, ...]:
        """Log-probabilities (nats) of the next token at the asked positions, `[position, d_vocab]` per prompt."""
        return tuple(logits.float().log_softmax(-1) for logits in self.logits)


def observe(
    model: Model,
    prompts: "str | Prompt | Tokens | Sequence[Any]",
    needs: Sequence[Need] = (),
    *,
    positions: "str | Sequence[int]" = "last",
    interventions: Sequence[Any] = (),
    fields: Mapping[str, torch.Tensor] | None = None,
    start: tuple[int, torch.Tensor] | None = None,
    stop: int | None = None,
    batch_tokens: int = _TOKENS_PER_BATCH,
    progress: Callable[[float], None] | None = None,
) -> Observation:
    """Run a model once over prompts and keep what the needs ask for.

    prompts: a text, Prompt, Tokens or flat list of ids, or a list of these. positions: where to keep the final logits:
    "last", "all", "none", or indices (negative ones count from each prompt's end). start: (layer, resid_pre
    `[prompt, pos, d_model]`) restarts there with that state. stop: leave after block stop-1; no logits then. progress:
    called with the share done (0 to 1) after each layer; it may raise to cancel. Unequal lengths are padded on the
    right, and padding enters no number.

    Raises InputError for bad prompts and hooks the model does not have, RefusedError where a hook never fired.
    """
    tokens = tuple(tokenise(model, prompt) for prompt in _as_list(prompts))
    if not tokens:
        raise InputError("no prompts", "at least one", "Give a text")
    asked = tuple(_positions(positions, len(t)) for t in tokens)
    needs = tuple(dict.fromkeys(needs))
    fields = dict(fields or {})
    _check_rows(interventions, len(tokens))
    run = _Run(model, needs, tuple(interventions), start, stop, progress, _Steps(len(tokens), model.sizes.n_layers))
    parts: list[tuple[dict[Need, torch.Tensor], list[torch.Tensor]]] = []
    for rows in _batches(tokens, batch_tokens):
        parts.append(run.batch(tokens[rows], {k: v[rows] for k, v in fields.items()}, asked[rows], rows))
    longest = max(len(t) for t in tokens)
    results = {need: _join([part[0][need] for part in parts], need, longest) for need in needs}
    logits = tuple(row for part in parts for row in part[1])
    return Observation(
        model.identity,
        model.sizes,
        model.vocabulary,
        tokens,
        results,
        logits,
        asked,
        fields,
        run.interventions,
        model.weights,
    )


def _as_list(prompts: Any) -> list[Any]:
    if isinstance(prompts, str | Prompt | Tokens):
        return [prompts]
    if isinstance(prompts, torch.Tensor):
        return [Prompt.ids(row) for row in torch.atleast_2d(prompts)]
    prompts = list(prompts)
    return [Prompt.ids(prompts)] if prompts and all(isinstance(p, int) for p in prompts) else prompts


def _positions(asked: "str | Sequence[int]", length: int) -> tuple[int, ...]:
    if isinstance(asked, str):
        named = {"last": (length - 1,), "all": tuple(range(length)), "none": ()}
        if asked not in named:
            raise InputError(f"positions={asked!r}", "'last', 'all', 'none' or indices", "Choose one of these")
        return named[asked]
    resolved = tuple(p + length if p < 0 else p for p in asked)
    outside = [p for p in resolved if not 0 <= p < length]
    if outside:
        raise InputError(f"position {outside[0]}", f"positions from 0 to {length - 1}", "Choose one inside the prompt")
    return resolved


def _check_rows(interventions: Sequence[Any], n_prompts: int) -> None:
    """An intervention on a row that no batch will hold would silently do nothing."""
    for intervention in interventions:
        outside = [row for row in getattr(intervention, "rows", None) or () if not 0 <= row < n_prompts]
        if outside:
            raise InputError(f"{intervention}", f"rows 0 to {n_prompts - 1}", "Name a prompt of this call")


def _batches(tokens: tuple[Tokens, ...], batch_tokens: int) -> Iterator[slice]:
    """Slices of consecutive prompts whose padded size stays within batch_tokens."""
    first, longest = 0, 0
    for i, t in enumerate(tokens):
        longest = max(longest, len(t))
        if i > first and (i - first + 1) * longest > batch_tokens:
            yield slice(first, i)
            first, longest = i, len(t)
    yield slice(first, len(tokens))


def _join(parts: list[torch.Tensor], need: Need, longest: int) -> torch.Tensor:
    """Concatenate batches along prompt, padding positional axes at the end."""
    if len(parts) == 1:
        return parts[0]
    if need.ragged and need.layered:
        return tuple(_cat(layer, need, 0) for layer in zip(*parts, strict=True))
    return _cat(parts, need, 1 if need.layered else 0)


def _cat(parts: Sequence[torch.Tensor], need: Need, batch_axis: int) -> torch.Tensor:
    padded = (*_POSITIONAL, _RAGGED)
    positional = [batch_axis + 1 + i for i, dim in enumerate(need.dims) if dim in padded]
    width = {axis: max(part.shape[axis] for part in parts) for axis in positional}
    return torch.cat([_pad(part, width) for part in parts], dim=batch_axis)


def _pad(part: torch.Tensor, width: dict[int, int]) -> torch.Tensor:
    shape = [width.get(axis, size) for axis, size in enumerate(part.shape)]
    if tuple(shape) == tuple(part.shape):
        return part
    padded = part.new_full(shape, torch.nan if part.is_floating_point() else -1)
    padded[tuple(slice(0, size) for size in part.shape)] = part
    return padded


class _Stop(Exception):
    """Leaves the forward pass after the last layer that is wanted."""


@dataclass
class _Steps:
    """Counts finished layers over all batches for the progress callback."""

    prompts: int
    n_layers: int
    done: float = 0.0


@dataclass
class _Run:
    """One observe() call: what to watch, and the batches it runs."""

    model: Model
    needs: tuple[Need, ...]
    interventions: tuple
    start: tuple[int, torch.Tensor] | None
    stop: int | None
    progress: Callable[[float], None] | None
    steps: _Steps

    def batch(self, tokens, fields, asked, rows: slice) -> tuple[dict[Need, torch.Tensor], list[torch.Tensor]]:
        ids, mask, lengths = _padded(tokens, self.model.adapter.device)
        watch = _Watch(self, ids, mask, lengths, fields)
        logits = None
        with self.model.lock, torch.no_grad(), ExitStack() as stack:
            if self.start is not None:
                stack.enter_context(self.model.adapter.skipping(self.start[0]))
                stack.enter_context(_restart(self.model, self.start[0], self.start[1][rows]))
            if self.interventions:
                stack.enter_context(hooks(self.model, self.interventions, tokens=tokens, rows=rows))
            stack.enter_context(watch.attached())
            with suppress(_Stop):
                logits = self.model.adapter.forward(ids)
        watch.check()
        results = {need: watch.stacked(need, logits) for need in self.needs}
        return results, _kept(logits, asked)


def _padded(tokens: Sequence[Tokens], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, mask `[batch, pos]` and lengths `[batch]`, padded on the right: causal models never look there."""
    lengths = torch.tensor([len(t) for t in tokens])
    ids = torch.zeros(len(tokens), int(lengths.max()), dtype=torch.long)
    for row, t in enumerate(tokens):
        ids[row, : len(t)] = torch.tensor(t.ids)
    mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
    return ids.to(device), mask.to(device), lengths.to(device)


@contextmanager
def _restart(model: Model, layer: int, resid: torch.Tensor) -> Iterator[None]:
    """Put a given state in front of a block; what came before it is discarded."""
    point = model.adapter.point(RESID_PRE, layer)

    def swap(activation, hook):
        if resid.shape != activation.shape:
            raise InputError(
                f"a state of shape {tuple(resid.shape)}",
                f"{tuple(activation.shape)}",
                "Take it from an observation of the same prompts",
            )
        return resid.to(activation)

    handle = point.add_hook(swap)
    try:
        yield
    finally:
        model.adapter.remove(point, handle)


def _kept(logits: torch.Tensor | None, asked) -> list[torch.Tensor]:
    if logits is None:
        return [torch.empty(0) for _ in asked]
    return [logits[row, list(positions)].clone() for row, positions in enumerate(asked)]


class _Watch:
    """Hooks of one batch: collects the activations of a layer until a need is complete, reduces it, lets go."""

    def __init__(self, run: _Run, ids, mask, lengths, fields):
        self.run, self.ids, self.mask, self.lengths, self.fields = run, ids, mask, lengths, fields
        model = run.model
        self.first = run.start[0] if run.start else 0
        self.last = (run.stop if run.stop is not None else model.sizes.n_layers) - 1
        self.waiting: dict[tuple[Need, int | None], dict[Hook, torch.Tensor]] = {}
        self.reduced: dict[tuple[Need, int | None], torch.Tensor] = {}

    def layers(self, need: Need) -> list[int | None]:
        """Layers of a need that this pass runs through; [None] for a need outside the blocks."""
        if not need.layered:
            return [None]
        n = self.run.model.sizes.n_layers
        asked = need.layers if need.layers is not None else range(n)
        outside = [layer for layer in asked if not 0 <= layer < n]
        if outside:
            raise InputError(f"layer {outside[0]}", f"layers 0 to {n - 1}", "Choose a layer the model has")
        return [layer for layer in asked if self.first <= layer <= self.last]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Register each hook once, and take all of them back in every case."""
        adapter, handles = self.run.model.adapter, []
        wanted: dict[tuple[Hook, int | None], list[Need]] = {}
        for need in self.run.needs:
            for layer in self.layers(need):
                for hook in need.hooks:
                    if hook is not LOGITS:
                        wanted.setdefault((hook, layer), []).append(need)
        try:
            for (hook, layer), needs in wanted.items():
                point = self._point(hook, layer, needs)
                handles.append((point, point.add_hook(self._collector(hook, layer, needs))))
            handles += list(self._ticks())
            yield
        finally:
            for point, handle in handles:
                adapter.remove(point, handle)

    def _point(self, hook: Hook, layer: int | None, needs: list[Need]):
        try:
            return self.run.model.adapter.point(hook, layer)
        except KeyError:
            had = [h.name for h in ALL_HOOKS if h is not LOGITS and _has(self.run.model, h)]
            raise InputError(
                f"{needs[0].reduce.__module__}.{needs[0].reduce.__qualname__}, which needs {hook.name}",
                f"one of {', '.join(had)} on {self.run.model.name}",
                "This model has no such activation: leave the analysis out for it",
            ) from None

    def _ticks(self):
        """Progress after each layer, and the early way out."""
        run, n = self.run, self.run.model.sizes.n_layers
        share = len(self.lengths) / run.steps.prompts / n

        def tick(layer):
            def fire(activation, hook):
                run.steps.done += share
                if run.progress is not None:
                    run.progress(min(1.0, run.steps.done))
                if run.stop is not None and layer == self.last:
                    raise _Stop

            return fire

        wanted = range(n) if run.progress is not None else ([self.last] if run.stop is not None else [])
        for layer in wanted:
            point = run.model.adapter.point(RESID_POST, layer)
            yield point, point.add_hook(tick(layer))

    def _collector(self, hook: Hook, layer: int | None, needs: list[Need]):
        def collect(activation, hook=None, _hook=hook):
            for need in needs:
                if len(need.hooks) == 1:
                    self._reduce(need, layer, {_hook: activation})
                    continue
                held = self.waiting.setdefault((need, layer), {})
                held[_hook] = activation
                if len(held) == len(need.hooks):
                    self._reduce(need, layer, self.waiting.pop((need, layer)))

        return collect

    def _reduce(self, need: Need, layer: int | None, held: dict[Hook, torch.Tensor]) -> None:
        site = Site(layer, self.ids, self.mask, self.lengths, self.fields, self.run.model)
        value = need.reduce(*(held[hook].detach() for hook in need.hooks), site, **dict(need.params))
        if value.ndim != 1 + len(need.dims) or value.shape[0] != len(self.lengths):
            raise InputError(
                f"{need.reduce.__qualname__} returning shape {tuple(value.shape)}",
                f"(batch={len(self.lengths)}, {', '.join(need.dims)})",
                "Declare the axes after batch in Need(dims=...)",
            )
        self.reduced[need, layer] = self._blank_padding(value, need)

    def _blank_padding(self, value: torch.Tensor, need: Need) -> torch.Tensor:
        """Overwrite what was computed on padding with NaN (integers: -1)."""
        n_pos = self.mask.shape[1]
        if bool(self.mask.all()):
            return value
        blank = torch.nan if value.is_floating_point() else -1
        for axis, dim in enumerate(need.dims, start=1):
            if dim in _POSITIONAL and value.shape[axis] == n_pos:
                shape = [1] * value.ndim
                shape[0], shape[axis] = self.mask.shape
                value = value.masked_fill(~self.mask.view(shape), blank)
        return value

    def check(self) -> None:
        """Nothing is worse than a number from a hook that did not fire."""
        for need in self.run.needs:
            for layer in self.layers(need):
                if (need, layer) not in self.reduced and LOGITS not in need.hooks:
                    raise RefusedError(
                        f"no {'/'.join(h.name for h in need.hooks)} from layer {layer} of {self.run.model.name}",
                        f"it to fire for {need.reduce.__module__}.{need.reduce.__qualname__}",
                        "The installed TransformerLens does not show it for this architecture: leave the analysis out",
                    )

    def stacked(self, need: Need, logits: torch.Tensor | None) -> torch.Tensor:
        """Layers of a need on top of each other; needs on logits are reduced here."""
        if LOGITS in need.hooks:
            if logits is None:
                raise InputError("a need on logits", "a pass that runs to its end", "Leave out stop=")
            self._reduce(need, None, {LOGITS: logits})
        values = [self.reduced.pop((need, layer)) for layer in self.layers(need)]
        if need.ragged and need.layered:
            return tuple(values)
        return torch.stack(values) if need.layered else values[0]


def _has(model: Model, hook: Hook) -> bool:
    try:
        return model.adapter.point(hook, 0 if hook.layered else None) is not None
    except KeyError:
        return False


def predict_bytes(sizes: Sizes, needs: Sequence[Need], n_prompts: int, length: int) -> int:
    """Bytes that the kept results of needs will take, from their declared dims; dims we do not know count as 1."""
    width = {
        "head": sizes.n_heads, "key_value_head": sizes.n_key_value_heads, "pos": length, "query": length, "key": length,
        "d_model": sizes.d_model, "dimension": sizes.d_model, "d_head": sizes.d_head, "neuron": sizes.d_mlp,
        "d_vocab": sizes.d_vocab,
    }  # fmt: skip
    total = 0
    for need in needs:
        positions = dict(need.params).get("positions")
        size = 4 * n_prompts * (len(need.layers or range(sizes.n_layers)) if need.layered else 1)
        for dim in need.dims:
            size *= len(positions) if positions is not None and dim == "pos" else width.get(dim, 1)
        total += size
    return total
