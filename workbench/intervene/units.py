"""Units: what can be taken away from a model. Each prints as people write it, and says where its output stands."""

from dataclasses import dataclass

from workbench.errors import InputError
from workbench.hooks import ATTN_OUT, MLP_OUT, MLP_POST, PATTERN, RESID_PRE, Z
from workbench.intervene.checks import need_layer
from workbench.intervene.edit import spans
from workbench.models.model import Model

__all__ = ["MLP", "Attention", "AttentionEdge", "Head", "Neurons", "Residual", "Unit"]


@dataclass(frozen=True, order=True)
class Head:
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
class Attention:
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
class MLP:
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
class Neurons:
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
        bad = [n for n in self.neurons if not 0 <= n < model.sizes.d_mlp]
        if bad or not self.neurons:
            raise InputError(
                f"neurons {self.neurons}", f"neurons 0 to {model.sizes.d_mlp - 1} on {model.name}", "Choose some it has"
            )


@dataclass(frozen=True, order=True)
class Residual:
    """The residual stream in front of a block; name positions in the intervention."""

    layer: int

    hook = RESID_PRE
    units = None

    def __str__(self) -> str:
        return f"L{self.layer} resid_pre"

    def check(self, model: Model) -> None:
        """InputError where the model has no such layer."""
        need_layer(model, self.layer, str(self))


@dataclass(frozen=True, order=True)
class AttentionEdge:
    """What one head moves from one key to one query; prints as L18H6 3->9. Ablated by zero only: its weight is 0."""

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
        return f"L{self.layer}H{self.head} {self.key}->{self.query}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such head, or where the key comes after the query."""
        Head(self.layer, self.head).check(model)
        if not 0 <= self.key <= self.query:
            raise InputError(f"the edge {self}", "0 <= key <= query", "Choose a key the query can see")


Unit = Head | Attention | MLP | Neurons | Residual | AttentionEdge
