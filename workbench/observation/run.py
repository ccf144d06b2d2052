"""One forward pass that feeds every analysis.

An analysis says what it must see of a layer and how to shrink it (`Need`). `observe()` takes the union of all needs,
watches each activation once, reduces a need as soon as its last activation of the layer has arrived, and drops the
inputs: extra memory is one layer's. Watching changes nothing: the logits are bit-equal to an unobserved pass of the
same batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from operator import index
from typing import Annotated, Any

import torch
from annotated_types import Ge

from workbench.arguments import argument, fitted
from workbench.errors import InputError
from workbench.intervene import Edit, hooks
from workbench.models.hooks import LOGITS, RESID_PRE, UNEMBEDDED
from workbench.models.model import Interventions, Model
from workbench.models.passes import Attached, skipped, undisturbed
from workbench.models.prompt import Prompt, Tokens, place, prompts_of, tokenise
from workbench.models.shared_prefix import linear_layers, sharing
from workbench.observation.finite import not_finite
from workbench.observation.need import POSITIONAL, RAGGED, Kept, Need
from workbench.observation.observation import Observation
from workbench.observation.watch import Call, Steps, Stop, Watch

__all__ = ["observe"]

_TOKENS_PER_BATCH = 4096
_NUMBER = 4  # bytes
_WHOLE_LOGITS = 1 << 28  # bytes; up to here a batch's logits are those of a plain pass, to the bit


@fitted("prompts", "start")
@undisturbed()
def observe(
    model: Model,
    prompts: "str | Prompt | Tokens | Sequence[Any]",
    needs: Sequence[Need] = (),
    *,
    positions: Annotated["str | Sequence[int]", "'last', 'all', 'none' or whole numbers"] = "last",
    interventions: Interventions = (),
    fields: Mapping[str, torch.Tensor] | None = None,
    start: tuple[int, torch.Tensor] | None = None,
    stop: int | None = None,
    batch_tokens: Annotated[int, Ge(1)] = _TOKENS_PER_BATCH,
    progress: Callable[[float], None] | None = None,
) -> Observation:
    """Run a model once over prompts and keep what the needs ask for.

    prompts: a text, Prompt, Tokens, chat, flat list of ids or what a tokenizer returns, or a list of these. positions:
    where to keep the final logits: "last", "all", "none", or indices (negative ones count from each prompt's end). Of
    a batch whose logits of all positions would take more than 256 MB, only those of these positions are computed.
    interventions: of this call, on top of those that the model carries (`Model.edited`). start: (layer, resid_pre
    `[prompt, pos, d_model]`) restarts there with that state. stop: leave after block stop-1; no logits then. progress:
    called with the share done (0 to 1) after each layer; it may raise to cancel. Unequal lengths are padded on the
    right, and padding enters no number.

    Raises InputError for bad prompts, positions that no prompt has and hooks the model does not have, RefusedError
    where a hook never fired, or where the model's weights were changed meanwhile.
    """
    model = model.fixed()
    first, last = _span(model, start, stop)
    tokens = tuple(tokenise(model, prompt) for prompt in prompts_of(prompts))
    if not tokens:
        raise InputError("no prompts", "at least one", "Give a text")
    asked = tuple(_positions(positions, len(t)) for t in tokens)
    needs = tuple(dict.fromkeys(needs))
    fields = dict(fields or {})
    _check_fields(fields, len(tokens))
    _check_rows(interventions, len(tokens))
    longest = max(len(t) for t in tokens)
    for need in needs:
        _positions(need.positions or (), longest)
    run = _Run(model, needs, tuple(interventions), start, stop, progress, Steps(len(tokens), model.sizes.n_layers))
    parts: list[tuple[dict[Need, Kept], list[torch.Tensor]]] = []
    for rows in _batches(tokens, batch_tokens, one_length=model.adapter.by_length):
        parts.append(run.batch(tokens[rows], {k: v[rows] for k, v in fields.items()}, asked[rows], rows))
    results = {need: _join([part[0][need] for part in parts], need, longest) for need in needs}
    logits = tuple(row for part in parts for row in part[1])
    model.need_steady()
    return Observation(
        model.identity,
        model.sizes,
        model.vocabulary,
        tokens,
        results,
        logits,
        asked,
        fields,
        (*model.interventions, *run.interventions),
        model,
        range(first, last + 1),
    )


def _span(model: Model, start: tuple[int, torch.Tensor] | None, stop: int | None) -> tuple[int, int]:
    """The first and the last layer of the pass; InputError for one that runs through no layer."""
    n, first = model.sizes.n_layers, 0 if start is None else _given_start(start)[0]
    if not 0 <= first < n:
        raise InputError(f"start={first}", f"layers 0 to {n - 1}", "Choose a layer the model has")
    if stop is not None and not first < stop <= n:
        raise InputError(f"stop={stop}", f"{first + 1} to {n}, one more than the last layer to run", "Stop behind one")
    return first, n - 1 if stop is None else stop - 1


def _given_start(start: Any) -> tuple[int, torch.Tensor]:
    pair = start if isinstance(start, tuple | list) and len(start) == 2 else (None, None)
    if not isinstance(pair[1], torch.Tensor) or pair[1].ndim != 3:
        raise InputError(
            f"start={type(start).__name__}", "(layer, tensor [prompt, pos, d_model])", "Give a layer and its state"
        )
    return argument("start[0]", pair[0], int, "observe()"), pair[1]


def _positions(asked: "str | Sequence[int]", length: int) -> tuple[int, ...]:
    if isinstance(asked, str):
        named = {"last": (length - 1,), "all": tuple(range(length)), "none": ()}
        if asked not in named:
            raise InputError(f"positions={asked!r}", "'last', 'all', 'none' or indices", "Choose one of these")
        return named[asked]
    try:
        asked = [_whole(p) for p in asked]
    except TypeError as error:
        raise InputError(f"positions={asked!r}", "'last', 'all', 'none' or whole numbers", "Give a list") from error
    return tuple(place(p, length) for p in asked)


def _whole(position: Any) -> int:
    if isinstance(position, bool):
        raise TypeError("a truth value is no position")
    return index(position)


def _check_fields(fields: Mapping[str, torch.Tensor], n_prompts: int) -> None:
    """A field without a row for each prompt would be cut off in silence, or fall short in a reducer."""
    for name, values in fields.items():
        if values.ndim == 0 or len(values) != n_prompts:
            raise InputError(
                f"the field {name!r} of shape {tuple(values.shape)}",
                f"a row for each of {n_prompts} prompts",
                "Give them",
            )


def _check_rows(interventions: Sequence[Any], n_prompts: int) -> None:
    """An intervention on a row that no batch will hold would silently do nothing."""
    for intervention in interventions:
        outside = [row for row in getattr(intervention, "rows", None) or () if not 0 <= row < n_prompts]
        if outside:
            raise InputError(f"{intervention}", f"rows 0 to {n_prompts - 1}", "Name a prompt of this call")


def _batches(tokens: tuple[Tokens, ...], batch_tokens: int, *, one_length: bool) -> Iterator[slice]:
    """Slices of consecutive prompts whose padded size stays within batch_tokens; or, of one length each."""
    first, longest = 0, 0
    for i, t in enumerate(tokens):
        longest = max(longest, len(t))
        other = one_length and len(t) != len(tokens[first])
        if i > first and (other or (i - first + 1) * longest > batch_tokens):
            yield slice(first, i)
            first, longest = i, len(t)
    yield slice(first, len(tokens))


def _join(parts: list[Any], need: Need, longest: int) -> Kept:
    """Concatenate batches along prompt, padding positional axes at the end."""
    if len(parts) == 1:
        return parts[0]
    if need.ragged and need.layered:
        return tuple(_cat(layer, need, 0) for layer in zip(*parts, strict=True))
    return _cat(parts, need, 1 if need.layered else 0)


def _cat(parts: Sequence[torch.Tensor], need: Need, batch_axis: int) -> torch.Tensor:
    padded = (*POSITIONAL, RAGGED)
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


class _Run(Call):
    """One observe() call: what to watch, and the batches it runs."""

    def reached(self, edit: Edit) -> bool:
        """Whether this pass comes by the place of an edit; a given state already holds what was written to it."""
        where = edit.where
        if where.layer is None:
            return self.stop is None
        first = self.start[0] if self.start else 0
        if self.start and (where.layer, where.hook) == (first, RESID_PRE):
            return edit.write is None
        return first <= where.layer and (self.stop is None or where.layer < self.stop)

    def batch(
        self,
        tokens: Sequence[Tokens],
        fields: Mapping[str, torch.Tensor],
        asked: Sequence[tuple[int, ...]],
        rows: slice,
    ) -> tuple[dict[Need, Kept], list[torch.Tensor]]:
        ids, mask, lengths = _padded(tokens, self.model.adapter.device)
        watch = Watch(self, ids, mask, lengths, fields)
        logits = None
        with self.model.passes.run(), torch.no_grad(), ExitStack() as stack:
            if self.start is not None:
                blocks, here = self.model.adapter.blocks, self.model.passes.here()
                stack.enter_context(skipped(blocks[: self.start[0]], here, self.model.adapter.tuples))
                if len(tokens) > 1:
                    stack.enter_context(sharing(linear_layers(blocks[self.start[0] :]), here))
                stack.enter_context(_restart(self.model, self.start[0], self.start[1][rows]))
            if self.interventions or self.model.interventions:
                edits = hooks(self.model, self.interventions, tokens=tokens, rows=rows, reached=self.reached)
                stack.enter_context(edits)
            kept = self._unembedded(ids, asked)
            if kept is not None:
                stack.enter_context(_only(self.model, kept))
            with watch.attached(), suppress(Stop):
                logits = self.model.adapter.forward(ids)
            if not watch.finite:
                raise not_finite(self.model, lambda: self.model.adapter.forward(ids), mask)
        watch.check()
        results = {need: watch.stacked(need, logits) for need in self.needs}
        return results, _kept(logits, asked, kept)

    def _unembedded(self, ids: torch.Tensor, asked: Sequence[tuple[int, ...]]) -> list[int] | None:
        """The positions whose logits are computed, where those of all would take too much; None for all of them."""
        sizes, needed = self.model.sizes, sorted({position for positions in asked for position in positions}) or [0]
        large = ids.numel() * sizes.d_vocab * _NUMBER > _WHOLE_LOGITS
        read = any(LOGITS in need.hooks for need in self.needs)
        return needed if large and not read and len(needed) < ids.shape[1] else None


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

    def swap(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        if resid.shape != activation.shape:
            raise InputError(
                f"a state of shape {tuple(resid.shape)}",
                f"{tuple(activation.shape)}",
                "Take it from an observation of the same prompts",
            )
        return resid.to(activation)

    with Attached(model) as attached:
        attached.add(point, swap)
        yield


@contextmanager
def _only(model: Model, positions: list[int]) -> Iterator[None]:
    """The unembedding reads these positions alone, where the model shows what it reads."""
    with Attached(model) as attached:
        with suppress(KeyError):
            attached.add(model.adapter.point(UNEMBEDDED, None), lambda state, hook: state[:, positions])
        yield


def _kept(
    logits: torch.Tensor | None, asked: Sequence[tuple[int, ...]], computed: list[int] | None = None
) -> list[torch.Tensor]:
    """The logits of the asked positions of each row. computed: the positions that there are, where not all."""
    if logits is None:
        return [torch.empty(0, dtype=torch.float32) for _ in asked]
    place = {p: i for i, p in enumerate(computed)} if computed and logits.shape[1] == len(computed) else None
    at = [list(positions) if place is None else [place[p] for p in positions] for positions in asked]
    return [logits[row, positions].clone() for row, positions in enumerate(at)]
