"""Model: what the rest of the workbench sees of a transformer.

A Model carries identity, sizes, tokenizer, lock, self-check and readout, and forwards to an adapter that knows the
library behind it. Probes see Model only.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import torch

from workbench.arguments import argument, fitted
from workbench.errors import InputError, RefusedError
from workbench.models.hooks import Hook
from workbench.models.identity import Identity
from workbench.models.norm import Norm
from workbench.models.passes import Passes
from workbench.models.readout import Readout
from workbench.models.selfcheck import SelfCheck
from workbench.models.vocabulary import Vocabulary

__all__ = ["Adapter", "Edits", "ExpertWeights", "Identity", "Interventions", "LayerWeights", "Model", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """The model's sizes, by the field's names.

    sliding: layers where a query sees a number of keys only, itself included; `windows` are these numbers, in the same
    order. chunked: those among them where the keys are not the last ones but the query's own chunk of the text (Llama
    4): token `window` starts anew. `first_key` says it for any layer and query. experts: layers whose MLP is a mixture
    of `n_experts`, each with `d_expert` neurons (0 where these are not shown).
    """

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    parallel: bool = False
    sliding: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    chunked: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()
    n_experts: int = 0
    d_expert: int = 0

    @property
    def window(self) -> int | None:
        """The smallest window; None where every layer sees all keys."""
        return min(self.windows, default=None)

    def first_key(self, layer: int, query: Any) -> Any:
        """The first key that a query of a layer sees: 0 where it sees all. query: an int, or an array of them."""
        if layer not in self.sliding:
            return query * 0
        window = self.windows[self.sliding.index(layer)]
        if layer in self.chunked:
            return query - query % window
        first = query - window + 1
        return first * (first > 0)


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Read-only weights of one layer under standard names; absent biases are zeros. Wrap a model again to change them.

    W_Q `[head, d_model, d_head]`, W_K and W_V `[key_value_head, d_model, d_head]`, W_O `[head, d_head, d_model]`,
    b_O `[d_model]`. post_attn_gain: gain `[d_model]` of a norm between attention and residual stream (Gemma 2 and 3),
    or None. W_in, W_gate `[d_model, neuron]`, W_out `[neuron, d_model]`, b_out: None where the layer has no such MLP.
    W_O, b_O, W_out and b_out hold the factor by which a block multiplies what a sublayer adds (Granite): they write
    what arrives. sinks `[head]`: scores of a learned sink that joins the softmax and is then dropped, so that a row of
    the pattern sums to less than 1 (GPT-OSS); None elsewhere. attention: what makes the pattern of scores, "softmax" or
    "relu" (divided by the number of visible keys: toys).
    """

    W_Q: torch.Tensor
    W_K: torch.Tensor
    W_V: torch.Tensor
    W_O: torch.Tensor
    b_O: torch.Tensor
    post_attn_gain: torch.Tensor | None = None
    post_mlp_gain: torch.Tensor | None = None
    W_in: torch.Tensor | None = None
    W_gate: torch.Tensor | None = None
    W_out: torch.Tensor | None = None
    b_out: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    attention: str = "softmax"

    def on(self, device: torch.device) -> "LayerWeights":
        """The same on a device: these where they lie there."""
        if self.W_O.device == device:
            return self
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        moved: dict[str, Any] = {n: x.to(device) for n, x in named.items() if isinstance(x, torch.Tensor)}
        return replace(self, **moved)

    @cached_property
    def W_O_gram(self) -> torch.Tensor:
        """W_O W_O^T, float32 `[head, d_head, d_head]`: |z W_O|^2 = z gram z^T, without writing z W_O out."""
        W_O = self.W_O.float()
        return W_O @ W_O.mT

    @cached_property
    def added_gram(self) -> torch.Tensor:
        """The same through the gain of a post-norm where there is one: over its squared scale, what reaches the stream
        has the squared norm z gram z^T."""
        if self.post_attn_gain is None:
            return self.W_O_gram
        W_O = self.W_O.float() * self.post_attn_gain.float()
        return W_O @ W_O.mT

    @property
    def written_units(self) -> str:
        """Units of z W_O: a post-norm still rescales what it gets."""
        return "residual units" if self.post_attn_gain is None else "units before the post-norm"

    def repeated(self, per_key_value_head: torch.Tensor, dim: int) -> torch.Tensor:
        """Repeat key/value heads along `dim` so that every query head has its own (query head h reads h // group)."""
        group = self.W_O.shape[0] // self.W_V.shape[0]
        return per_key_value_head.repeat_interleave(group, dim=dim) if group > 1 else per_key_value_head


@dataclass(frozen=True, eq=False)
class ExpertWeights:
    """Read-only weights that one expert of a mixture writes with: W_out `[neuron, d_model]`, b_out `[d_model]`.

    They hold the factor by which a block multiplies what a sublayer adds. A token's expert adds its weight times
    (activations W_out + b_out); scaled_inside: the weight is in the activations already (Llama 4).
    """

    W_out: torch.Tensor
    b_out: torch.Tensor
    scaled_inside: bool = False

    def on(self, device: torch.device) -> "ExpertWeights":
        """The same on a device."""
        return replace(self, W_out=self.W_out.to(device), b_out=self.b_out.to(device))


class Adapter(Protocol):
    """The handful of things that differ between a TransformerBridge and our own small modules.

    by_length: rotations depend on the length of the input, so that a batch must hold one length. tuples: layers whose
    block gives a tuple, whose first entry is the state.
    """

    sizes: Sizes
    by_length: bool
    tuples: tuple[int, ...]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[batch, pos]` ids to logits `[batch, pos, d_vocab]`, firing the hook points."""

    def point(self, hook: Hook, layer: int | None) -> Any:
        """The hook point (with `add_hook`) of a hook; KeyError where the model has none."""

    def remove(self, point: Any, handle: Any) -> None:
        """Take back what `point.add_hook` returned."""

    def weights(self, layer: int) -> LayerWeights:
        """Weights of one layer."""

    def expert(self, layer: int, expert: int) -> ExpertWeights:
        """Weights of one expert of a mixture; KeyError where the model shows none."""

    def readout(self) -> Readout:
        """Final norm, unembedding and soft cap."""

    @property
    def blocks(self) -> Sequence[torch.nn.Module]:
        """The module whose call is a layer, for each layer."""

    def parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Names and tensors of all parameters, tied ones once."""

    def norm(self, layer: int, sublayer: str) -> Norm:
        """The norm in front of a sublayer, "attention" or "mlp"."""

    def attention(self, layer: int) -> torch.nn.Module:
        """The module whose call is the attention of a layer, its hooks included."""

    def reading_z(self, layer: int) -> torch.nn.Module | None:
        """The library's own module whose input is z, `[batch, pos, head * d_head]`, for a plain hook; None without."""

    @property
    def positions(self) -> str:
        """How a token's position enters, in words: such as "rotary, base 10,000"."""

    @property
    def tied(self) -> bool:
        """Whether embedding and unembedding are one matrix."""

    @property
    def numbers(self) -> tuple[int, int]:
        """How many numbers its weights are, tied ones once, and their bytes."""

    @property
    def device(self) -> torch.device:
        """Where token ids must go."""

    def place(self, layer: int) -> torch.device:
        """Where a layer's weights lie: a model may be split over devices."""

    @property
    def ends(self) -> tuple[int, ...]:
        """Token ids that end a text, by what the model's own files say."""


@runtime_checkable
class Edits(Protocol):
    """What can say where it writes: an intervention (see `workbench.intervene`)."""

    def edits(self, model: Any) -> Any:
        """The edits on a model."""


Interventions = Sequence[Annotated[Edits, "an intervention, such as Ablate(Head(1, 2))"]]


class Follows(Protocol):
    """What takes up changes of weights."""

    def __call__(self) -> "Model":
        """The model around the weights as they are now."""

    def watched(self) -> Callable[[], bool]:
        """What says from now on, in little time, whether nothing was written into them since."""


@dataclass(eq=False)
class Model:
    """A loaded model. Made by `load()` or `wrap()`; do what runs the adapter itself inside `passes.run()`.

    made: what it was when its weights were last looked at (`identity` looks again). passes: those under way, and the
    lock that other threads wait for. interventions: edits that every pass on it carries out (see `edited`); none for a
    model as it was loaded. follow: gives the model around the weights as they are now (None: nobody can change them).
    steady: of a `fixed` one, whether they still are what they were then.
    """

    made: Identity
    adapter: Adapter
    tokenizer: Any = None
    passes: Passes = field(default_factory=Passes, repr=False)
    selfcheck: SelfCheck | None = field(default=None, repr=False)
    interventions: tuple[Any, ...] = ()
    follow: "Follows | None" = field(default=None, repr=False)
    steady: "Callable[[], bool] | None" = field(default=None, repr=False)

    in_words: ClassVar[str] = "a model of load() or wrap(model, tokenizer)"

    def __post_init__(self) -> None:
        self.readout = self.adapter.readout()
        self.vocabulary = Vocabulary(self.tokenizer, self.sizes.d_vocab)

    @property
    def identity(self) -> Identity:
        """Which weights, as they are now."""
        self.renew()
        return self.made

    def renew(self) -> None:
        """Take up what became of the weights: where their holder has changed them since the last look, instrument,
        hash and self-check are made anew. Inside a pass nothing is taken up."""
        if self.follow is None or self.is_held:
            return
        now = self.follow()
        if now.adapter is not self.adapter:
            self.made, self.adapter, self.readout, self.selfcheck = now.made, now.adapter, now.readout, now.selfcheck
            if self.vocabulary.size != self.sizes.d_vocab:  # resized, as after tokens were added
                self.vocabulary = Vocabulary(self.tokenizer, self.sizes.d_vocab)

    def fixed(self) -> "Model":
        """This model as its weights are now, for all of one run: it looks at them no more."""
        steady = None if self.follow is None else self.follow.watched()  # before the look: what comes between is seen
        self.renew()
        if self.follow is None:
            return self
        other = copy.copy(self)
        other.follow, other.steady = None, steady
        return other

    def need_steady(self) -> None:
        """RefusedError where a fixed model's weights were changed meanwhile: what was computed is of neither."""
        if self.steady is not None and not self.steady():
            raise RefusedError(
                f"weights of {self.name} that were changed while this was computed",
                "weights that stay as they are meanwhile",
                "Compute it again",
            )

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self.made.name

    @property
    def lock(self) -> Any:
        """Held while a pass runs: another thread's waits for it."""
        return self.passes.lock

    @property
    def is_held(self) -> bool:
        """Whether this thread holds the lock: it has a pass under way."""
        return self.passes.is_mine

    @property
    def sizes(self) -> Sizes:
        """n_layers, n_heads, d_model and the rest."""
        return self.adapter.sizes

    @property
    def ends(self) -> tuple[int, ...]:
        """Token ids that end a text: those of the generation config, of the config and of the tokenizer together."""
        own = getattr(self.tokenizer, "eos_token_id", None)
        return tuple(dict.fromkeys([*self.adapter.ends, *([] if own is None else [int(own)])]))

    def weights(self, layer: int) -> LayerWeights:
        """Weights of one layer under standard names; InputError where there is none."""
        n = self.sizes.n_layers
        if not -n <= argument("layer", layer, int, "Model.weights()") < n:
            raise InputError(f"layer {layer}", f"layers 0 to {n - 1} on {self.name}", "Choose a layer it has")
        return self.adapter.weights(layer)

    def expert_weights(self, layer: int, expert: int) -> ExpertWeights:
        """Weights of one expert of a layer with a mixture; InputError where its neurons are not shown."""
        try:
            return self.adapter.expert(layer, expert)
        except KeyError:
            raise InputError(
                f"neurons of an expert in layer {layer} of {self.name}",
                f"a mixture of experts whose neurons are shown ({self.made.architecture}'s are not)",
                "Take the whole expert, such as L0E1",
            ) from None

    def n_neurons(self, layer: int) -> int:
        """Neurons of the MLP of a layer: blocks that were cut narrower have fewer than `sizes.d_mlp`."""
        W_out = self.weights(layer).W_out
        return self.sizes.d_mlp if W_out is None else W_out.shape[0]

    @fitted()
    def edited(self, interventions: Interventions) -> "Model":
        """The same model with interventions that every pass on it carries out: observed ones, sweeps, gradients.

        It shares weights, lock and self-check with this one, which stays as it is. InputError for units it does not
        have, for interventions on rows of a batch (a pass of a study may have other rows), and for those behind the
        blocks (analyses read states out with the model's own final norm).
        """
        for intervention in interventions:
            if any(edit.where.layer is None for edit in intervention.edits(self)):
                raise InputError(
                    f"{intervention} for every pass", "an intervention inside the blocks", "Give it to observe() alone"
                )
            if getattr(intervention, "rows", None) is not None or getattr(intervention, "by_row", False):
                raise InputError(
                    f"{intervention} for every pass",
                    "an intervention on all rows alike",
                    "Leave out rows= (of Attend, give keys [query]), or use observe()",
                )
        return self.carrying(interventions)

    def carrying(self, interventions: Sequence[Any]) -> "Model":
        """As `edited`, unchecked: for who carries them out in one pass and knows what that is."""
        if not interventions:
            return self
        other = copy.copy(self)
        other.interventions = (*self.interventions, *interventions)
        return other

    def __copy__(self) -> "Model":
        """The same weights, lock and self-check."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RefusedError(
            f"{self.name} to be pickled or copied with its weights",
            "a model that stays where it is: hooks and a lock belong to it",
            "Load it again there, or wrap() a copy of the Hugging Face model",
        )

    def __repr__(self) -> str:
        s = self.sizes
        heads = (
            f"{s.n_heads} heads"
            if s.n_heads == s.n_key_value_heads
            else f"{s.n_heads} heads ({s.n_key_value_heads} key/value)"
        )
        badge = f", {self.made.badge}" if self.made.badge else ""
        check = f", self-check {self.selfcheck.summary}" if self.selfcheck else ""
        sizes = f"{s.n_layers} layers, {heads}, d_model {s.d_model}"
        return f"<Model {self.name}: {sizes}, {self.made.dtype}{badge}{check}>"
