"""A folder's tokenizer is what its tokenizer.json says, whatever class a library takes for the model's architecture."""

import json

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import tiny_hf
from workbench import load
from workbench.errors import ModelError
from workbench.loading.files.tokenizers import tokenizer_of
from workbench.models.prompt import tokenise


def by_pieces():
    """A tokenizer that cuts a text behind each "a" and knows the pieces of one sentence, 96 tokens in all."""
    pieces = ["The ca", "pita", "l of Fra", "nce", "?"]
    tokens = Tokenizer(models.WordLevel({p: i for i, p in enumerate([*pieces, *map(str, range(91))])}, unk_token="?"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex("[^a]*a"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="?")


@pytest.fixture
def folder(tmp_path):
    """A tiny Qwen2 with a tokenizer of its own."""
    tiny_hf("qwen2").save_pretrained(tmp_path)
    by_pieces().save_pretrained(tmp_path)
    return tmp_path


def test_an_architecture_does_not_choose_how_texts_are_cut(folder):
    model = load(str(folder))
    assert tokenise(model, "The capital of France").ids == (0, 1, 2, 3)
    assert "tokenised as its tokenizer.json says" in model.identity.badge


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer"])
def test_nor_does_a_name_in_a_config(folder, name):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": name}))
    found, _ = tokenizer_of({"pretrained_model_name_or_path": str(folder)})
    assert found.encode("The capital of France", add_special_tokens=False) == [0, 1, 2, 3]


def test_of_tokenizers_that_are_read_alike_nothing_is_said(tmp_path):
    from tests.tiny_models import spelling

    spelling().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    _, said = tokenizer_of({"pretrained_model_name_or_path": str(tmp_path)})
    assert said == ""


def test_a_space_that_a_config_puts_in_front_stays(tmp_path):
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytes_of = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_of.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=bytes_of).save_pretrained(tmp_path)
    config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "unk_token": "!"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    found, said = tokenizer_of({"pretrained_model_name_or_path": str(tmp_path)})
    assert said == "" and len(found.encode("The", add_special_tokens=False)) == 4


@pytest.mark.parametrize("config", [None, {"tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>"}])
def test_a_space_that_the_file_puts_in_front_stays(tmp_path, config):
    """Gemma's class puts none there, whatever the file says."""
    signs = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"Thecapitlo"]
    vocabulary = {sign: i for i, sign in enumerate(signs)}
    tokens = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokens.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokens.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found, said = tokenizer_of({"pretrained_model_name_or_path": str(tmp_path)})
    assert found.encode("The", add_special_tokens=False)[0] == 5
    assert said == "tokenised as its tokenizer.json says"


def test_a_file_that_the_class_of_its_config_cannot_do_with_is_read_by_itself(tmp_path):
    """Gemma's class wants a token for what is unknown."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    letters = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "T": 2, "h": 3, "e": 4}, merges=[]))
    letters.save(str(tmp_path / "tokenizer.json"))
    found, said = tokenizer_of({"pretrained_model_name_or_path": str(tmp_path)})
    assert found.encode("The", add_special_tokens=False) == [2, 3, 4]
    assert said == "tokenised as its tokenizer.json says"


def test_what_cannot_be_read_at_all_is_told_by_the_library(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="no usable model"):
        load(str(folder))
