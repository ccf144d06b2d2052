"""The same architecture without what was learned: random weights around the trained embedding."""

import copy
from typing import Any

import torch

from workbench.draws import Draws
from workbench.errors import UnavailableError
from workbench.loading.pretrained import wrap
from workbench.models.model import Model

__all__ = ["random_twin"]


def random_twin(model: Model, seed: int = 0) -> Model:
    """A model of the same configuration with fresh random weights, and the trained embedding (and unembedding).

    It shows what an architecture and the frequencies of a text give by themselves. Raises UnavailableError for a model
    that is not a Hugging Face one.
    """
    from transformers import AutoModelForCausalLM

    bridged: Any = model.adapter
    if getattr(bridged, "hf_model", None) is None:
        raise UnavailableError(f"{model.name}, which has no configuration", "a Hugging Face model", "Leave out control")
    with Draws(seed):
        fresh = AutoModelForCausalLM.from_config(copy.deepcopy(bridged.hf_config), dtype=torch.float32).eval()
    with torch.no_grad():
        fresh.get_output_embeddings().weight.copy_(model.readout.W_U)
        fresh.get_input_embeddings().weight.copy_(_embedding(bridged))
    return wrap(fresh, model.tokenizer, name=f"{model.name}, random weights (seed {seed})")


def _embedding(bridged: Any) -> torch.Tensor:
    """The input embedding `[d_vocab, d_model]`, through the bridge's wrapping."""
    embed = bridged.bridge.embed
    return getattr(embed, "original_component", embed).weight
