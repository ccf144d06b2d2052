"""Masks that older transformers saved beside the weights are no other model's weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import spelling, tiny_hf
from workbench import load, observe
from workbench.errors import ModelError

_LENGTH = 128


def band(window=_LENGTH):
    seen = torch.ones(_LENGTH, _LENGTH, dtype=torch.bool).tril()
    return (seen ^ seen.tril(-window))[None, None]


def published(directory, family, held, prefix=True):
    """A checkpoint as such models are published, and the model in it. held: what stands beside the weights."""
    model = tiny_hf(family)
    model.save_pretrained(directory)
    spelling().save_pretrained(directory)
    file = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()} | held
    file.unlink()
    save_file({name if prefix else name.removeprefix("transformer."): t for name, t in tensors.items()}, file)
    return model


_NUMBER = torch.tensor(-1e9)
OLD = {
    "gpt_neo": {
        **{f"transformer.h.{i}.attn.attention.masked_bias": _NUMBER.clone() for i in (0, 1)},
        "transformer.h.0.attn.attention.bias": band(),
        "transformer.h.1.attn.attention.bias": band(8).to(torch.uint8),  # its window
    },
    "gptj": {"transformer.h.0.attn.bias": band(), "transformer.h.0.attn.masked_bias": _NUMBER.half()},
    "codegen": {f"transformer.h.{i}.attn.causal_mask": band().to(torch.uint8) for i in (0, 1)},
    "gpt2": {"transformer.h.1.attn.masked_bias": _NUMBER.clone(), "transformer.h.1.attn.bias": band().float()},
}


@pytest.mark.parametrize(("family", "prefix"), [*((family, True) for family in OLD), ("gpt2", False)])
def test_an_old_checkpoint_loads_with_its_masks(tmp_path, family, prefix):
    held = published(tmp_path / "m", family, OLD[family], prefix)
    model = load(str(tmp_path / "m"))
    ids = [7, 3, 60, 12, 3, 9, 55, 31, 8, 40, 2]
    with torch.no_grad():
        wanted = held(torch.tensor([ids])).logits[0]
    assert torch.allclose(observe(model, ids, positions="all").logits[0], wanted, atol=1e-4)


@pytest.mark.parametrize(
    "mask",
    [
        band(9),
        band().flip(-1),
        torch.ones_like(band()),
        band().transpose(2, 3),
        torch.zeros_like(band()),
        torch.ones(32),
    ],
)
def test_what_is_another_mask_or_a_bias_is_another_model(tmp_path, mask):
    published(tmp_path / "m", "gptj", {"transformer.h.0.attn.bias": mask.contiguous()})
    with pytest.raises(ModelError, match=r"with transformer\.h\.0\.attn\.bias, which the model of its config"):
        load(str(tmp_path / "m"))
