"""Whether what is read off W_out is what an MLP adds: its output may be made of more than that matrix."""

from workbench.errors import RefusedError
from workbench.models.hooks import MLP_POST
from workbench.models.model import Model

__all__ = ["need_neurons", "unlike_W_out"]


def unlike_W_out(model: Model) -> str:
    """Why a neuron does not add its activation times its row of W_out, by the self-check; "" where it does.

    A module that multiplies by its weight and by something else besides (an adapter of one's own, a quantiser) shows
    the weight alone.
    """
    item = None if model.selfcheck is None else model.selfcheck.unproved(MLP_POST)
    return "" if item is None else item.sentence


def need_neurons(model: Model) -> None:
    """RefusedError where what neurons add cannot be told from W_out."""
    if why := unlike_W_out(model):
        raise RefusedError(
            f"neurons of {model.name}, whose MLPs do not add activations times W_out",
            f"a passed self-check ({why})",
            "Leave neurons out, or merge what was put beside the weights into them",
        )
