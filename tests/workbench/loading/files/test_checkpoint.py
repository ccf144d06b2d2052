"""Directories that are not whole are refused by name: the library fills in random numbers, or drops what is left."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import spelling, tiny_hf
from workbench import load
from workbench.errors import InputError, ModelError, UnavailableError
from workbench.loading import pretrained, weights
from workbench.loading.files import digests


@pytest.fixture
def directory(tmp_path):
    """A tiny Qwen2 in Hugging Face format, to be damaged."""
    tiny_hf("qwen2").save_pretrained(tmp_path / "model")
    spelling().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_weights(directory, change):
    """Write its weights again, changed; read apart from the file, which is mapped into memory."""
    file = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    file.unlink()
    save_file(tensors, file, {"format": "pt"})


def change_config(directory, **values):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.k_proj.bias"])
def test_a_missing_tensor_is_named(directory, name):
    change_weights(directory, lambda tensors: tensors.pop(name))
    with pytest.raises(InputError, match=name):
        load(str(directory))


def test_left_over_tensors_are_named_and_counted(directory):
    change_weights(directory, lambda tensors: tensors.update({f"score.{i}": torch.ones(2) for i in range(5)}))
    with pytest.raises(InputError, match=r"score\.0, score\.1, score\.2 and 2 others"):
        load(str(directory))


def test_more_layers_in_the_config_than_in_the_file(directory):
    change_config(directory, num_hidden_layers=3, layer_types=["full_attention"] * 3)
    with pytest.raises(InputError, match=r"lacks model\.layers\.2\."):
        load(str(directory))


@pytest.mark.parametrize(
    ("name", "shape"), [("model.norm.weight", (31,)), ("model.layers.1.self_attn.v_proj.weight", (16, 33))]
)
def test_a_tensor_of_another_shape_is_named(directory, name, shape):
    change_weights(directory, lambda tensors: tensors.update({name: torch.ones(shape)}))
    with pytest.raises(InputError, match=rf"the shape is another than the config says of {name};"):
        load(str(directory))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "generation_config.json"])
def test_a_pipe_among_the_files_is_named_and_not_waited_for(directory, name):
    (directory / name).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    with pytest.raises(ModelError, match=f"'{name}'.*which is no file"):
        load(str(directory))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_settings_that_are_nested_too_deeply_are_one_sentence(directory, name):
    (directory / name).write_text('{"a": ' * 30_000 + "1" + "}" * 30_000)
    with pytest.raises(ModelError, match="no usable model at"):
        load(str(directory))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:5e2d3bd2b6f1\nsize 269060552\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "../model.gguf"])
def test_what_git_leaves_without_its_large_files_is_named(directory, name):
    """A cloned folder: it said "header too large"."""
    file = (directory / name).resolve()
    file.unlink(missing_ok=True)
    file.write_bytes(POINTER)
    with pytest.raises(ModelError, match=rf"{file.name}, which only says where Git LFS keeps .*git lfs pull"):
        load(str(file if file.suffix == ".gguf" else directory))


def test_without_a_tokenizer(directory):
    for file in (*directory.glob("tokenizer*"), *directory.glob("special*")):
        file.unlink()
    with pytest.raises(InputError, match=r"no tokenizer in .*tokenizer\.json"):
        load(str(directory))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}, "encoder"),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "no causal language model"),
        ({"model_type": "of-tomorrow"}, "of-tomorrow"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"hidden_size": "wide"}, "no usable model"),
        ({"rms_norm_eps": "small"}, "no usable model at .*'rms_norm_eps': .*float.*small"),
        ({"num_attention_heads": 0}, "no usable model"),
    ],
)
def test_a_config_of_something_else_is_one_sentence(directory, values, said):
    change_config(directory, **values)
    with pytest.raises(InputError, match=said):
        load(str(directory))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe" * 50, b'{"a": '])
def test_damaged_files_are_one_sentence(directory, file, content):
    (directory / file).unlink()
    (directory / file).write_bytes(content)
    with pytest.raises(UnavailableError, match="no usable model") as caught:
        load(str(directory))
    assert isinstance(caught.value, InputError)  # exit code 2


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "cpu:x", ""])
def test_devices_that_are_not_there(name):
    with pytest.raises(InputError, match="a device this PyTorch can use"):
        load("toy-induction", device=name)


# --- the hash ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """A cache of its own, and how often weights were hashed. Files count as old at once."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_GRAIN_NS", -(10**12))
    calls, plain = [], weights.weights_hash
    monkeypatch.setattr(pretrained.weights, "weights_hash", lambda found: calls.append(1) or plain(found))
    return calls


def test_weights_are_hashed_once_for_each_content(directory, hashed):
    first = load(str(directory)).identity.weights_hash
    assert load(str(directory)).identity.weights_hash == first and len(hashed) == 1
    load(str(directory), dtype=torch.float16)
    assert len(hashed) == 2  # another dtype is another model
    shutil.copytree(directory, directory.parent / "copy", copy_function=shutil.copy2)
    assert load(str(directory.parent / "copy")).identity.weights_hash == first and len(hashed) == 2


def test_other_bytes_of_the_same_size_and_time_are_seen(directory, hashed, tmp_path):
    """As a copy that keeps times leaves them; the file's own time of change and its inode tell."""
    import os

    first = load(str(directory)).identity.weights_hash
    file = directory / "model.safetensors"
    stat = file.stat()
    change_weights(directory, lambda t: t["model.norm.weight"].mul_(2))
    assert file.stat().st_size == stat.st_size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load(str(directory)).identity.weights_hash != first


def test_a_link_that_turns_is_seen(directory, hashed):
    other = directory.parent / "other.safetensors"
    shutil.copy2(directory / "model.safetensors", other)
    change_weights(directory, lambda t: t["model.norm.weight"].mul_(2))
    second = load(str(directory)).identity.weights_hash
    (directory / "model.safetensors").rename(directory.parent / "first.safetensors")
    (directory / "model.safetensors").symlink_to(other)
    assert load(str(directory)).identity.weights_hash != second


def test_a_kept_hash_that_was_altered_is_not_believed(directory, hashed):
    first = load(str(directory)).identity.weights_hash
    for file in (directory.parent / "cache" / "digests").glob("*.json"):
        file.write_text(file.read_text().replace(first, "0" * 64))
    assert load(str(directory)).identity.weights_hash == first and len(hashed) == 2
