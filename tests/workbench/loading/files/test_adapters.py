"""Adapters: merged where peft is installed and everything fits, refused else. Their files are written here."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_models import tiny_hf
from workbench import load
from workbench.errors import InputError
from workbench.loading.files import adapters

KEYS = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"


def write_adapter(directory, base="", key=KEYS, layers=(0, 1), **config):
    """A LoRA of rank 2 on the queries of a tiny Llama; returns its weights."""
    directory.mkdir(exist_ok=True)
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj"]}
    said |= {"base_model_name_or_path": str(base), **config}
    (directory / "adapter_config.json").write_text(json.dumps(said))
    draw = torch.Generator().manual_seed(0)
    sizes = {"A": (2, 32), "B": (32, 2)}
    weights = {
        key.format(layer, side): torch.randn(*size, generator=draw) for layer in layers for side, size in sizes.items()
    }
    save_file(weights, directory / "adapter_model.safetensors", {"format": "pt"})
    return weights


@pytest.fixture
def beside(tiny_dir, tmp_path):
    """The tiny model's directory, for an adapter to be put there."""
    shutil.copytree(tiny_dir, tmp_path / "both")
    return tmp_path / "both"


def test_without_peft_an_adapter_is_never_ignored(beside, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    for directory in (beside, tmp_path / "alone"):
        write_adapter(directory)
        with pytest.raises(InputError, match=r"an adapter .*no peft to merge it.*Install peft"):
            load(str(directory))


def test_an_adapter_whose_base_is_not_there_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: True)
    write_adapter(tmp_path / "alone", base="somebody/their-base")
    with pytest.raises(InputError, match="'somebody/their-base', which is no directory here"):
        load(str(tmp_path / "alone"))
    (tmp_path / "alone" / "adapter_config.json").write_text("[]")
    with pytest.raises(InputError, match="does not name its base"):
        load(str(tmp_path / "alone"))
    (tmp_path / "alone" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"without adapter_model\.safetensors"):
        load(str(tmp_path / "alone"))


def merged_by_hand(weights, scale):
    hf = tiny_hf("llama")
    with torch.no_grad():
        for layer in (0, 1):
            A, B = (weights[KEYS.format(layer, side)] for side in "AB")
            hf.model.layers[layer].self_attn.q_proj.weight += scale * B @ A
        return hf(torch.tensor([[0, 40, 7, 9]])).logits


@pytest.mark.parametrize(("config", "scale"), [({}, 3.0), ({"use_rslora": True}, 6 / 2**0.5)])
@pytest.mark.parametrize("alone", [True, False])
def test_with_peft_it_is_merged_and_named(tiny_dir, beside, tmp_path, config, scale, alone):
    pytest.importorskip("peft")
    directory = tmp_path / "alone" if alone else beside
    weights = write_adapter(directory, base=tiny_dir, **config)
    model = load(str(directory))
    with torch.no_grad():
        logits = model.adapter.forward(torch.tensor([[0, 40, 7, 9]]))
    assert torch.allclose(logits, merged_by_hand(weights, scale), atol=1e-4)  # sums in another order
    assert f"adapter {directory.name} merged (4 of 4 weights)" in model.identity.badge
    assert model.identity.weights_hash != load(str(tiny_dir)).identity.weights_hash


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": KEYS.replace("model.layers", "transformer.h")}, "of whose 4 weights 4 fit nothing"),
        ({"layers": (0, 1, 5)}, "of whose 6 weights 2 fit nothing.*layers.5"),
        ({"layers": (1,)}, "lacks 2 weights which its config asks for.*layers.0"),
        ({"target_modules": ["c_attn"]}, "does not fit"),
        ({"r": 3}, "does not fit"),
        ({"peft_type": "OF_TOMORROW"}, "adapter"),
    ],
)
def test_with_peft_what_does_not_fit_whole_is_refused(beside, given, said):
    pytest.importorskip("peft")
    write_adapter(beside, **given)
    with pytest.raises(InputError, match=said):
        load(str(beside))
