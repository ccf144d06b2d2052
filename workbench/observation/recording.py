"""What interventions take from elsewhere: the activations of another run, and means over a reference text.

Both are values with a printed hash: a result says which run or text its patches and means came from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge

from workbench.arguments import fitted
from workbench.corpora import Document, reference_text
from workbench.errors import InputError, RefusedError
from workbench.intervene import tensor_digest
from workbench.models.hooks import ATTN_OUT, MLP_OUT, MLP_POST, Hook, Z
from workbench.models.model import Interventions, Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.observation import Need, Site, keep, observe
from workbench.words import counted

__all__ = ["Means", "Recording", "measure_means", "record", "record_all"]

Values = Mapping[tuple[Hook, int | None], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Recording:
    """Activations of one run over one prompt, `[pos, ...]` float32 by (hook, layer). Prints its prompt and hash.

    start: the hash of the state that the run began with, where that was not the embedding.
    """

    tokens: Tokens
    model_key: str
    values: Values = field(repr=False)
    interventions: tuple[str, ...] = ()
    start: str = ""

    in_words: ClassVar[str] = "what record() gives"

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def digest(self) -> str:
        """12 hex digits of model, token ids, interventions and what the run began with."""
        made_of = (self.model_key, self.tokens.ids, self.interventions, *([self.start] if self.start else []))
        return sha256(repr(made_of).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        text = self.tokens.text
        return f"run of {text if len(text) <= 40 else text[:37] + '...'!r}@{self.digest}"

    def take(self, hook: Hook, layer: int | None, model: Model) -> torch.Tensor:
        """The activation at a site; InputError where it was not recorded or belongs to another model."""
        _need_same_model(self, self.model_key, model)
        return _found(self, self.values, hook, layer)


@dataclass(frozen=True, eq=False)
class Means:
    """Means of activations over positions >= 1 of a reference text, by (hook, layer), without batch and pos axes.

    n_tokens: positions that entered each mean. interventions: that the model carried when they were measured.
    """

    name: str
    model_key: str
    n_tokens: int
    values: Values = field(repr=False)
    interventions: tuple[str, ...] = ()

    in_words: ClassVar[str] = "what measure_means() gives"

    def __str__(self) -> str:
        edited = f", with {', '.join(self.interventions)}" if self.interventions else ""
        return f"{self.name}, {counted(self.n_tokens, 'token')}{edited}"

    def mean(self, hook: Hook, layer: int, model: Model) -> torch.Tensor:
        """The mean at a site; InputError where it was not measured or belongs to another model."""
        _need_same_model(self, self.model_key, model)
        return _found(self, self.values, hook, layer)


def _need_same_model(what: Any, model_key: str, model: Model) -> None:
    if model_key != model.identity.key:
        raise InputError(f"{what} of another model", f"one of {model.name}", "Record it on this model")


def _found(what: Any, values: Values, hook: Hook, layer: int | None) -> torch.Tensor:
    if (hook, layer) not in values:
        had = sorted({h.name for h, _ in values})
        raise InputError(
            f"{hook.name} of layer {layer} from {what}", f"what it holds: {', '.join(had)}", "Record it too"
        )
    return values[hook, layer]


@fitted("prompts")
def record_all(
    model: Model,
    prompts: Sequence[Any],
    hooks: Sequence[Hook],
    layers: Sequence[int] | None = None,
    *,
    interventions: Interventions = (),
    **options: Any,
) -> list[Recording]:
    """Run prompts once and keep activations of all their tokens, for patching. One Recording per prompt.

    layers: None for all. A recorded pattern is `[head, query, key]`: quadratic in length. options: passed to observe().
    """
    chosen = None if layers is None else tuple(layers)
    needs = {
        hook: Need((hook,), keep, dims=_axis_names(hook), layers=chosen if hook.layered else None)
        for hook in dict.fromkeys(hooks)
    }
    seen = observe(
        model, prompts, list(needs.values()), interventions=interventions, **{"positions": "none", **options}
    )
    start = options.get("start")
    recordings = []
    for row, tokens in enumerate(seen.tokens):
        began = "" if start is None else f"{start[0]} {tensor_digest(start[1][row])}"
        values: dict[tuple[Hook, int | None], torch.Tensor] = {}
        for hook, need in needs.items():
            stacked = seen[need] if hook.layered else seen[need][None]
            for layer, kept in zip(seen.layers(need) if hook.layered else [None], stacked, strict=True):
                values[hook, layer] = _unpadded(kept[row], hook, len(tokens))
        printed = tuple(_printed_on(row, seen.interventions))
        recordings.append(Recording(tokens, model.identity.key, values, printed, began))
    return recordings


def _printed_on(row: int, interventions: Sequence[Any]) -> Iterator[str]:
    """The interventions that one row of a call had: the same prompt in another row may have had others."""
    for one in interventions:
        rows = getattr(one, "rows", None)
        if rows is None or row in rows:
            yield str(one)


@fitted()
def record(
    model: Model, prompt: Any, hooks: Sequence[Hook], layers: Sequence[int] | None = None, **options: Any
) -> Recording:
    """`record_all` for one prompt."""
    return record_all(model, [tokenise(model, prompt)], hooks, layers, **options)[0]


def _axis_names(hook: Hook) -> tuple[str, ...]:
    return hook.dims[1:]


def _unpadded(value: torch.Tensor, hook: Hook, length: int) -> torch.Tensor:
    for axis, dim in enumerate(hook.dims[1:]):
        if dim in ("pos", "query", "key"):
            value = value.narrow(axis, 0, length)
    return value


def sum_from_one(activation: torch.Tensor, site: Site) -> torch.Tensor:
    """Sum over positions >= 1 of `[batch, pos, ...]`, padding left out."""
    mask = site.mask.clone()
    mask[:, 0] = False
    shape = [*mask.shape, *[1] * (activation.ndim - 2)]
    return (activation.detach().float() * mask.view(shape)).sum(1)


@fitted()
def measure_means(
    model: Model,
    reference: Document | Sequence[Any] | None = None,
    *,
    hooks: Sequence[Hook] = (Z, ATTN_OUT, MLP_OUT),
    n_tokens: Annotated[int, Ge(2)] = 512,
    piece: Annotated[int, Ge(2)] = 64,
) -> Means:
    """Means over positions >= 1 of a reference, for `Ablate(unit, "mean", means)`.

    reference: a Document (None: `reference_text()`), cut into pieces of `piece` tokens, each behind a BOS token where
    the model has one, `n_tokens` in all; or a list of prompts. Models without a tokenizer get random ids (seed 0).
    Position 0 is left out: what stands there (attention sinks) is unlike anything else.
    """
    name, prompts = _reference(model, reference, n_tokens, piece)
    wanted = [hook for hook in dict.fromkeys(hooks) if model.sizes.d_mlp or hook not in (MLP_OUT, MLP_POST)]
    layers = {hook: _layers_with(model, hook) for hook in wanted}
    needs = {
        hook: Need((hook,), sum_from_one, dims=hook.dims[2:], layers=where) for hook, where in layers.items() if where
    }
    try:
        seen = observe(model, prompts, list(needs.values()), positions="none", stop=model.sizes.n_layers)
    except InputError as error:
        if not model.interventions:
            raise
        raise RefusedError(
            f"means over {name} with {', '.join(map(str, model.interventions))} ({error.got})",
            "interventions that other texts can carry, too",
            "Leave out those at positions of the prompt, or do without means",
        ) from error
    n = sum(len(t) - 1 for t in seen.tokens)
    if not n:
        raise InputError("a reference of one-token prompts", "positions >= 1", "Give a longer text")
    values: dict[tuple[Hook, int | None], torch.Tensor] = {
        (hook, layer): total.sum(0) / n
        for hook, need in needs.items()
        for layer, total in zip(layers[hook], seen[need], strict=True)
    }
    return Means(name, model.identity.key, n, values, tuple(map(str, model.interventions)))


def _layers_with(model: Model, hook: Hook) -> list[int]:
    """Layers whose means can be taken: those of a mixture of experts have no neurons of their own."""
    n = range(model.sizes.n_layers)
    return [layer for layer in n if hook is not MLP_POST or model.weights(layer).W_out is not None]


def _reference(model: Model, reference: Any, n_tokens: int, piece: int) -> tuple[str, list[Any]]:
    if reference is None and model.tokenizer is None:
        seed = torch.Generator().manual_seed(0)  # torch.manual_seed would set everybody's
        ids = torch.randint(model.sizes.d_vocab, (max(1, n_tokens // piece), piece), generator=seed)
        return f"random ids, seed 0, in pieces of {piece}", [Prompt.ids(row) for row in ids[:, : model.sizes.n_ctx]]
    if reference is None or isinstance(reference, Document):
        document = reference or reference_text()
        return f"{document} in pieces of {piece}", _pieces(model, document.text, n_tokens, piece)
    prompts = [tokenise(model, prompt) for prompt in reference]
    digest = sha256(repr([t.ids for t in prompts]).encode()).hexdigest()[:12]
    return f"{len(prompts)} prompts@{digest}", prompts


def _pieces(model: Model, text: str, n_tokens: int, piece: int) -> list[Prompt]:
    ids = model.tokenizer.encode(text, add_special_tokens=False)[:n_tokens]
    front = list(model.vocabulary.prefix)
    step = piece - len(front)
    if step < 2:
        raise InputError(
            f"piece={piece}", f"at least {len(front) + 2}: {len(front)} of it begin each", "Take longer ones"
        )
    return [Prompt.ids(front + ids[i : i + step]) for i in range(0, len(ids), step) if len(ids[i : i + step]) > 1]
