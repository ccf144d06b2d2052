"""Units: what can be taken away from a model. Each prints as people write it, and `units_of` reads that again."""

import re
from dataclasses import dataclass

from workbench.arguments import fitted, hold_fields
from workbench.errors import InputError
from workbench.intervene.checks import need_layer
from workbench.intervene.edit import spans
from workbench.models.hooks import ATTN_OUT, MLP_OUT, MLP_POST, PATTERN, RESID_PRE, ROUTER, SCORES, Hook, Z, expert_post
from workbench.models.model import Model

__all__ = [
    "MLP",
    "Attention",
    "AttentionEdge",
    "AttentionKey",
    "Expert",
    "ExpertNeurons",
    "Head",
    "Neurons",
    "Residual",
    "Unit",
    "units_of",
]


class _Held:
    """Its numbers are whole ones."""

    def __post_init__(self) -> None:
        hold_fields(self)


@dataclass(frozen=True, order=True)
class Head(_Held):
    """An attention head; prints as L18H6. Its output is its z, before W_O."""

    layer: int
    head: int

    hook = Z

    @property
    def units(self) -> tuple[int, ...]:
        """The head alone."""
        return (self.head,)

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such head."""
        sizes = model.sizes
        if not (0 <= self.layer < sizes.n_layers and 0 <= self.head < sizes.n_heads):
            raise InputError(
                f"head {self}",
                f"L0H0 to L{sizes.n_layers - 1}H{sizes.n_heads - 1} on {model.name}",
                "Choose a head it has",
            )


@dataclass(frozen=True, order=True)
class Attention(_Held):
    """An attention block: what it adds to the residual stream, with its bias."""

    layer: int

    hook = ATTN_OUT
    units = None

    def __str__(self) -> str:
        return f"L{self.layer} attention"

    def check(self, model: Model) -> None:
        """InputError where the model has no such layer."""
        need_layer(model, self.layer, str(self))


@dataclass(frozen=True, order=True)
class MLP(_Held):
    """An MLP block: what it adds to the residual stream, with its bias."""

    layer: int

    hook = MLP_OUT
    units = None

    def __str__(self) -> str:
        return f"L{self.layer} MLP"

    def check(self, model: Model) -> None:
        """InputError where the model has no such layer or no MLP."""
        need_layer(model, self.layer, str(self))
        if not model.sizes.d_mlp:
            raise InputError(str(self), f"attention only, since {model.name} has no MLP", "Choose a head")


@dataclass(frozen=True, order=True)
class Neurons(_Held):
    """A set of MLP neurons of one layer, as activations that W_out reads; one prints as L11N2378."""

    layer: int
    neurons: tuple[int, ...]

    hook = MLP_POST

    @property
    def units(self) -> tuple[int, ...]:
        """The neurons."""
        return self.neurons

    def __str__(self) -> str:
        return f"L{self.layer}N{spans(self.neurons)}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such neuron."""
        need_layer(model, self.layer, str(self))
        if self.layer in model.sizes.experts:
            raise InputError(
                f"neurons of layer {self.layer} of {model.name}",
                f"a layer with one MLP: this is a mixture of {model.sizes.n_experts} experts with neurons of their own",
                f"Name those of one expert, such as L{self.layer}E0N1",
            )
        _need_neurons(self, model.n_neurons(self.layer), f"layer {self.layer} of {model.name}")


def _need_neurons(unit: "Neurons | ExpertNeurons", n_neurons: int, where: str) -> None:
    if not unit.neurons or not all(0 <= n < n_neurons for n in unit.neurons):
        raise InputError(f"neurons {unit.neurons}", f"neurons 0 to {n_neurons - 1} in {where}", "Choose some it has")
    if len(set(unit.neurons)) != len(unit.neurons):
        raise InputError(f"{unit}, one of whose neurons is named twice", "each once", "Name it once")


@dataclass(frozen=True, order=True)
class Expert(_Held):
    """An expert of a mixture, as the router's score of it; prints as L3E5.

    Ablated by zero only: it is switched off, its score is minus infinity, and the router chooses among the others.
    """

    layer: int
    expert: int

    hook = ROUTER

    @property
    def units(self) -> tuple[int, ...]:
        """The expert alone."""
        return (self.expert,)

    def __str__(self) -> str:
        return f"L{self.layer}E{self.expert}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such expert."""
        need_layer(model, self.layer, str(self))
        sizes = model.sizes
        if self.layer not in sizes.experts:
            has = f"experts in layers {spans(sizes.experts)}" if sizes.experts else "no experts"
            raise InputError(
                str(self), f"a layer with a mixture of experts: {model.name} has {has}", "Choose another unit"
            )
        if not 0 <= self.expert < sizes.n_experts:
            raise InputError(str(self), f"experts 0 to {sizes.n_experts - 1} on {model.name}", "Choose one it has")


@dataclass(frozen=True, order=True)
class ExpertNeurons(_Held):
    """A set of neurons of one expert of a mixture, as activations that its W_out reads; one prints as L3E5N12.

    Edited at tokens that take the expert: at others it computes nothing. Ablated by zero only: what it would do at a
    token that does not take it is not known, so that there is no mean and no other prompt's value.
    """

    layer: int
    expert: int
    neurons: tuple[int, ...]

    @property
    def hook(self) -> Hook:
        """The expert's own."""
        return expert_post(self.expert)

    @property
    def units(self) -> tuple[int, ...]:
        """The neurons."""
        return self.neurons

    def __str__(self) -> str:
        return f"L{self.layer}E{self.expert}N{spans(self.neurons)}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such expert, shows none of its neurons, or not these."""
        Expert(self.layer, self.expert).check(model)
        model.expert_weights(self.layer, self.expert)
        _need_neurons(self, model.sizes.d_expert, f"an expert of layer {self.layer} of {model.name}")


@dataclass(frozen=True, order=True)
class Residual(_Held):
    """The residual stream in front of a block; prints as L12 pos 5. Without pos, name positions in the intervention."""

    layer: int
    pos: int | None = None

    hook = RESID_PRE
    units = None

    def __str__(self) -> str:
        return f"L{self.layer} resid_pre" if self.pos is None else f"L{self.layer} pos {self.pos}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such layer."""
        need_layer(model, self.layer, str(self))


@dataclass(frozen=True, order=True)
class AttentionEdge(_Held):
    """What one head moves from one key to one query; prints as L18H6:9<-3. Ablated by zero only: its weight is 0."""

    layer: int
    head: int
    query: int
    key: int

    hook = PATTERN

    @property
    def units(self) -> tuple[int, ...]:
        """The head alone."""
        return (self.head,)

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}:{self.query}<-{self.key}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such head, or where the key comes after the query."""
        Head(self.layer, self.head).check(model)
        if not 0 <= self.key <= self.query:
            raise InputError(f"the edge {self}", "0 <= key <= query", "Choose a key the query can see")


@dataclass(frozen=True, order=True)
class AttentionKey(_Held):
    """A key in the sight of one head, such as an attention sink; prints as L18H6 key 0.

    Ablated by zero only: it is hidden before the softmax from every query that sees another key.
    """

    layer: int
    head: int
    key: int

    hook = SCORES

    @property
    def units(self) -> tuple[int, ...]:
        """The head alone."""
        return (self.head,)

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head} key {self.key}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such head; a position is checked by whoever knows the prompt."""
        Head(self.layer, self.head).check(model)
        if self.key < 0:
            raise InputError(str(self), "a position from 0 on", "Count from the first token")


Unit = Head | Attention | MLP | Neurons | Expert | ExpertNeurons | Residual | AttentionEdge | AttentionKey

_WRITTEN = re.compile(
    r"L(?P<layer>\d{1,9})(?:"
    r"H(?P<head>\d{1,9})(?::(?P<query>\d{1,9})<-(?P<origin>\d{1,9})|\s+key\s+(?P<key>\d{1,9}))?"
    r"|N(?P<neurons>\d{1,9}(?:,\d{1,9})*)"
    r"|E(?P<expert>\d{1,9})(?:N(?P<inside>\d{1,9}(?:,\d{1,9})*))?"
    r"|\s+(?P<block>attention|attn|mlp)"
    r"|\s+pos\s+(?P<pos>\d{1,9}))(?=[\s,]|$)",
    re.IGNORECASE,
)


@fitted()
def units_of(text: str) -> tuple[Unit, ...]:
    """Units from their names, with spaces or commas between them: `L18H6 L17H3`.

    L18H6 a head, L18H6:9<-3 its edge from position 3 to 9, L18H6 key 0 a key in its sight, L20N507 or L20N507,9
    neurons, L3E5 an expert, L3E5N12 or L3E5N12,14 neurons of that expert, L20 mlp, L20 attention (or attn), L12 pos 5
    a state in front of block 12. InputError where the text says none.
    """
    found, rest = [], text.strip()
    while rest:
        written = _WRITTEN.match(rest)
        if written is None:
            raise InputError(
                f"the units {text!r}, unreadable from {rest[:20]!r}",
                "names such as L18H6, L18H6:9<-3, L18H6 key 0, L20N507, L20 mlp, L20 attention or L12 pos 5",
                "Write one after the other, with spaces between",
            )
        found.append(_unit(written))
        rest = rest[written.end() :].lstrip(" ,\t\n")
    return tuple(found)


def _unit(written: re.Match[str]) -> Unit:
    said = {name: value for name, value in written.groupdict().items() if value is not None}
    if "neurons" in said:
        return Neurons(int(said["layer"]), tuple(map(int, said["neurons"].split(","))))
    if "inside" in said:
        return ExpertNeurons(int(said["layer"]), int(said["expert"]), tuple(map(int, said["inside"].split(","))))
    if "expert" in said:
        return Expert(int(said["layer"]), int(said["expert"]))
    if "block" in said:
        return (MLP if said["block"].lower() == "mlp" else Attention)(int(said["layer"]))
    numbers = {name: int(value) for name, value in said.items()}
    layer, head = numbers["layer"], numbers.get("head")
    if head is None:
        return Residual(layer, numbers["pos"])
    if "query" in numbers:
        return AttentionEdge(layer, head, numbers["query"], numbers["origin"])
    return AttentionKey(layer, head, numbers["key"]) if "key" in numbers else Head(layer, head)
