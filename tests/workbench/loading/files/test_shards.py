"""Weights that a directory names elsewhere or twice, and files that change while a model of them is read or held."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import spelling, tiny_hf
from workbench import load
from workbench.errors import ModelError
from workbench.loading import pretrained
from workbench.loading.weights import weights_hash

INDEX = "model.safetensors.index.json"


@pytest.fixture
def directory(tmp_path):
    """A tiny model in seven files."""
    tiny_hf("llama").save_pretrained(tmp_path / "model", max_shard_size="20KB")
    spelling().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_index(directory, change):
    """The file of the first tensor; its index is written anew, changed."""
    said = json.loads((directory / INDEX).read_text())
    first = min(said["weight_map"].values())
    change(said["weight_map"], first)
    (directory / INDEX).write_text(json.dumps(said))
    return directory / first


@pytest.mark.parametrize("elsewhere", ["../beside.safetensors", "sub/beside.safetensors", "/{}/beside.safetensors"])
def test_weights_that_are_named_elsewhere_are_refused(directory, elsewhere):
    """The hash is of the files in the directory: what changes elsewhere left it, and all keys, as they were."""
    name = elsewhere.format(directory.parent)

    def move(where, first):
        where.update({tensor: name for tensor, file in where.items() if file == first})

    first = change_index(directory, move)
    (directory / "sub").mkdir()
    shutil.move(first, directory / name)
    with pytest.raises(ModelError, match=r"names weights '.*', which is no file beside it"):
        load(str(directory))


def test_a_config_may_not_name_weights_elsewhere(directory):
    (directory / "sub").mkdir()
    config = json.loads((directory / "config.json").read_text())
    for name in ("sub/x.safetensors", 7):
        (directory / "config.json").write_text(json.dumps(config | {"transformers_weights": name}))
        with pytest.raises(ModelError, match=r"config\.json that names weights '"):
            load(str(directory))


def test_a_tensor_in_two_files_is_named(directory):
    """The library takes the last one, whatever the index says."""
    where = json.loads((directory / INDEX).read_text())["weight_map"]
    norm = "model.layers.0.input_layernorm.weight"
    other = directory / max(file for file in where.values() if file != where[norm])
    tensors = {name: tensor.clone() for name, tensor in load_file(other).items()}
    other.unlink()
    save_file(tensors | {norm: torch.full((32,), 7.0)}, other, {"format": "pt"})
    with pytest.raises(ModelError, match=f"with {norm} in two files, "):
        load(str(directory))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "without a table"), ([1], "without a table"), ({"lm_head.weight": 3}, "names weights '3'"),
        ({"lm_head.weight": "absent.safetensors"}, "names absent.safetensors, which is not there"),
    ],
)  # fmt: skip
def test_an_index_of_another_kind_is_one_sentence(directory, table, said):
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))
    with pytest.raises(ModelError, match=said):
        load(str(directory))


def test_more_layers_than_weights_are_refused_before_they_are_built(directory):
    """Ten million layers took all memory of the machine."""
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1000}))
    with pytest.raises(ModelError, match=r"with 1,000 layers, and 21 weights"):
        load(str(directory))


def test_what_is_written_over_the_files_is_not_in_a_model_that_is_held(directory):
    """Weights were pages of the files: other numbers without a word, and the end of the process at a shorter file."""
    model = load(str(directory))
    ids = torch.tensor([[3, 7, 9, 5]])
    before, key = model.adapter.forward(ids), model.identity.key
    for file in directory.glob("*.safetensors"):
        size = file.stat().st_size
        with file.open("r+b") as stream:
            stream.seek(size // 2)
            stream.write(b"\0" * (size - size // 2))
    assert torch.equal(model.adapter.forward(ids), before) and model.identity.key == key


def test_files_that_are_exchanged_while_they_are_read_are_refused(directory, monkeypatch):
    """The hash that was kept for the first ones was given to the second."""
    load(str(directory))
    plain = pretrained.placed

    def exchanged(source, *more):
        file = min(directory.glob("*.safetensors"))
        tensors = {name: 2 * tensor for name, tensor in load_file(file).items()}
        file.unlink()
        save_file(tensors, file, {"format": "pt"})
        return plain(source, *more)

    monkeypatch.setattr(pretrained, "placed", exchanged)
    with pytest.raises(ModelError, match="were written while they were read"):
        load(str(directory))


def whole(directory, change):
    """The same in one file, changed."""
    tensors = {}
    for file in directory.glob("*.safetensors"):
        tensors |= {name: tensor.clone() for name, tensor in load_file(file).items()}
        file.unlink()
    (directory / INDEX).unlink()
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool])
def test_whole_numbers_that_do_not_say_what_they_mean_are_no_weights(directory, kind):
    """They were taken as they are: of a quantised model without its scales, rounded to nothing or far too large."""
    name = "model.layers.1.mlp.down_proj.weight"
    whole(directory, lambda tensors: tensors.update({name: (100 * tensors[name]).to(kind)}))
    with pytest.raises(ModelError, match=rf"with {name} in whole numbers \("):
        load(str(directory))


def test_one_weight_under_two_names_is_refused(directory):
    name = "layers.1.mlp.down_proj.weight"
    whole(directory, lambda tensors: tensors.update({name: 3 * tensors[f"model.{name}"]}))
    with pytest.raises(ModelError, match=rf"with one weight as \S*{name} and as \S*{name}"):
        load(str(directory))


def test_an_end_token_that_is_none_is_one_sentence(directory):
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": "x"}))
    with pytest.raises(ModelError, match="an end token 'x' in the configuration; expected ids"):
        load(str(directory)).ends  # noqa: B018 - it is asked for


def test_the_hash_does_not_know_in_which_order_weights_come():
    weights = list(tiny_hf("llama").named_parameters())
    assert weights_hash(weights) == weights_hash(weights[::-1]) != weights_hash(weights[1:])
