"""GGUF files: the same numbers as the model they were written from, converted once, and nothing of them dropped."""

import json

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from transformers import Gemma2Config, Gemma3TextConfig, LlamaForCausalLM

from tests.tiny_gguf import write_gguf
from tests.tiny_models import tiny_hf
from workbench import load
from workbench.errors import InputError, Note, UnavailableError
from workbench.loading.files import gguf
from workbench.models.prompt import tokenise

IDS = torch.tensor([[0, 40, 7, 9, 55]])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf", tiny_hf("llama"))


def logits(model):
    with torch.no_grad():
        return model.adapter.forward(IDS)


def test_a_file_is_converted_once_and_is_the_model_it_was_written_from(file, monkeypatch):
    with torch.no_grad():
        plain = tiny_hf("llama")(IDS).logits
    first = load(str(file))
    assert first.selfcheck.passed and first.identity.badge == "dequantised from tiny.gguf"
    assert torch.allclose(logits(first), plain, atol=1e-5)  # norms of the file are float32 as ours; eps is rounded
    monkeypatch.setattr(gguf, "_convert", lambda *_: pytest.fail("converted a second time"))
    other = file.with_name("other.GGUF")  # a name of its own, in capitals, of the same bytes
    other.write_bytes(file.read_bytes())
    again = load(str(other))
    assert again.identity.weights_hash == first.identity.weights_hash and torch.equal(logits(again), logits(first))
    assert again.identity.badge == "dequantised from other.GGUF"


def test_a_conversion_in_a_cache_that_can_only_be_read_is_used(file, monkeypatch):
    first = load(str(file))
    monkeypatch.setattr(gguf.kept, "alone", lambda *_: pytest.fail("a lock was asked for"))
    assert load(str(file)).identity.key == first.identity.key


def test_a_disk_that_fills_is_not_taken_for_a_fault_of_the_file(file, monkeypatch):
    """What writes the weights is not Python, and carries the system's error as text only."""

    def fill(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", fill)
    with pytest.raises(UnavailableError, match=r"Got a full disk under .*for the conversion of tiny\.gguf.*Free some"):
        load(str(file))


def test_a_cache_behind_a_link_to_nothing_is_told_by_name(tmp_path, file, monkeypatch):
    """As where a disk is not mounted. It is not a matter of permission, nor of the file."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "away" / "disk")
    monkeypatch.setenv("WORKBENCH_CACHE", str(link))
    with pytest.raises(UnavailableError, match=r"Got File exists at \S*link; .*Set WORKBENCH_CACHE") as caught:
        load(str(file))
    assert "permission" not in str(caught.value) and "tiny.gguf" not in str(caught.value)


def test_a_cache_where_no_folder_can_be_made_is_told_by_name(file, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", "/proc/none/cache")
    with pytest.raises(UnavailableError, match=r"Got No such file or directory at /proc/none; .*Set WORKBENCH_CACHE"):
        load(str(file))


def test_a_changed_manifest_is_not_believed(file, monkeypatch):
    """It says what was not read of the file, which stands beside every number."""
    load(str(file))
    place = next((file.parent / "cache" / "models").glob("gguf-*")) / "manifest.json"
    manifest = json.loads(place.read_text())
    place.write_text(json.dumps(manifest | {"not_read": "nothing of note"}))
    made, notes = [], []
    convert = gguf._convert
    monkeypatch.setattr(gguf, "_convert", lambda *given: made.append(1) or convert(*given))
    again = load(str(file), progress=lambda stage, share, text: notes.append(text))
    assert made and again.identity.badge == "dequantised from tiny.gguf" and any("damaged" in note for note in notes)


def test_other_bytes_under_the_same_name_are_another_model(file):
    first = load(str(file))
    write_gguf(file, tiny_hf("llama", seed=1))
    assert load(str(file)).identity.weights_hash != first.identity.weights_hash


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_conversion_is_made_anew_with_a_word(file, tmp_path, name):
    before = logits(load(str(file)))
    (kept,) = (tmp_path / "cache" / "models").glob(f"*/{name}")
    content = bytearray(kept.read_bytes())
    content[-20] ^= 1
    kept.write_bytes(content)
    said = []
    again = load(str(file), progress=lambda stage, share, text: said.append((stage, text)))
    assert [text for stage, text in said if stage == "note" and name in text and "made anew" in text]
    assert torch.equal(logits(again), before)
    kept.write_bytes(content)
    with pytest.warns(Note, match="made anew"):  # in Python nobody follows
        load(str(file))


LINEAR = [("add_string", "llama.rope.scaling.type", "linear"), ("add_float32", "llama.rope.scaling.factor", 4.0)]


@pytest.mark.parametrize(
    ("keys", "tensors", "named"),
    [
        (LINEAR, (), "rope.scaling.type = linear"),
        ([("add_float32", "llama.rope.scaling.attn_factor", 0.75)], (), "rope.scaling.attn_factor"),
        ([("add_sliding_window", 4)], (), "attention.sliding_window = 4"),
        ([("add_key_length", 16)], (), "attention.key_length = 16"),
        ([("add_float32", "llama.attn_logit_softcapping", 50.0)], (), "attn_logit_softcapping"),
        ([("add_logit_scale", 0.25)], (), "logit_scale"),
        ((), [("rope_freqs.weight", np.full(4, 2, np.float32))], "the tensor rope_freqs.weight"),
        ((), [("blk.0.attn_q.bias", np.ones(32, np.float32))], "the tensor blk.0.attn_q.bias"),
    ],
)
def test_what_would_be_dropped_and_changes_the_numbers_is_refused_by_name(tmp_path, keys, tensors, named):
    with pytest.raises(InputError, match=named):
        load(str(write_gguf(tmp_path / "more.gguf", tiny_hf("llama"), keys, tensors)))


def test_what_says_the_same_is_not_mentioned_and_the_rest_is_noted(tmp_path):
    same = [("add_key_length", 8), ("add_value_length", 8), ("add_string", "llama.rope.scaling.type", "none")]
    other = [("add_uint32", "llama.leading_dense_block_count", 1)]
    path = write_gguf(tmp_path / "more.gguf", tiny_hf("llama"), [*same, *other])
    assert (
        load(str(path)).identity.badge == "dequantised from more.gguf; not read of it: llama.leading_dense_block_count"
    )


@pytest.mark.parametrize("kind", ["gemma2", "gemma3"])
def test_a_scale_of_attention_that_no_file_holds_is_not_made_up(kind):
    """The reader takes Gemma's usual one for all: of a Gemma 2 of 27 billion weights the scores were a quarter off."""
    made_by = {"gemma2": Gemma2Config, "gemma3": Gemma3TextConfig}[kind]
    keys = {"general.architecture": kind}
    (told,) = gguf.unread(keys | {f"{kind}.attention.key_length": 128}, made_by(head_dim=128)).changing
    assert told == "the scale of attention (it takes that of heads of 256 numbers, not 128)"
    assert not gguf.unread(keys | {f"{kind}.attention.key_length": 256}, made_by(head_dim=256)).changing


@pytest.mark.parametrize("adds", [True, False])
def test_a_file_says_whether_prompts_stand_behind_bos(tmp_path, adds):
    model = load(str(write_gguf(tmp_path / "bos.gguf", tiny_hf("llama"), [("add_add_bos_token", adds)])))
    assert model.vocabulary.prefix == ((0,) if adds else ())


def vocabulary(joined, space="Ġ"):
    """A writer's calls for a vocabulary of signs in which one pair is joined, as token 94."""
    tokens = ["<s>", space, *(chr(33 + i) for i in range(92)), joined, "Ċ"]
    return [("add_token_list", tokens), ("add_token_merges", [" ".join(joined)])]


@pytest.mark.parametrize(
    ("name", "joined", "ids"),
    [
        ("stablelm2", "(x", [94]),  # Qwen's split leaves a bracket with its word
        ("gpt-2", "(x", [9, 89]),
        ("starcoder", "47", [21, 24]),  # each digit by itself
        ("olmo", "47", [94]),
    ],
)
def test_texts_are_split_as_the_file_says(tmp_path, name, joined, ids):
    keys = [("add_tokenizer_pre", name), *vocabulary(joined)]
    path = write_gguf(tmp_path / "split.gguf", tiny_hf("llama"), keys)
    model = load(str(path))
    assert model.tokenizer.encode(joined, add_special_tokens=False) == ids
    assert model.identity.badge == "dequantised from split.gguf"


def test_a_split_that_is_not_known_is_told_with_every_number(tmp_path):
    keys = [("add_tokenizer_pre", "falcon"), *vocabulary("(x")]
    badge = load(str(write_gguf(tmp_path / "split.gguf", tiny_hf("llama"), keys))).identity.badge
    assert "not read of it: how it splits texts (tokenizer.ggml.pre = falcon; split as GPT-2 does)" in badge


@pytest.mark.parametrize(("name", "ids"), [("llama-bpe", [0, 94]), ("tekken", [0, 94]), ("qwen2", [41, 42])])
def test_the_name_of_llama_3_means_whole_words_behind_bos(tmp_path, name, ids):
    """Files of Llama 3 say neither: a word that is a token is that token, though no merges lead to it."""
    tokens = [*dict(vocabulary("HI"))["add_token_list"][:95], "ab"]
    keys = [("add_tokenizer_pre", name), ("add_token_list", tokens), ("add_token_merges", ["a b"])]
    model = load(str(write_gguf(tmp_path / "words.gguf", tiny_hf("llama"), keys)))
    assert list(tokenise(model, "HI").ids) == ids
    assert model.vocabulary.text([94]) == "HI"


@pytest.mark.parametrize("space", [True, False])
def test_a_space_stands_in_front_of_texts_where_the_file_says_so(tmp_path, space):
    scores = [("add_tokenizer_model", "llama"), ("add_tokenizer_pre", "default"), ("add_token_scores", [0.0] * 96)]
    keys = [*scores, ("add_add_space_prefix", space), *vocabulary("ab", "▁")]
    path = write_gguf(tmp_path / "space.gguf", tiny_hf("llama"), keys)
    tokenizer = load(str(path)).tokenizer
    ids = tokenizer.encode("ab a", add_special_tokens=False)
    assert ids == ([1] if space else []) + [94, 1, 66]
    assert tokenizer.decode([1, 66]) == ("a" if space else " a")


def test_a_file_without_a_weight_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        load(str(write_gguf(tmp_path / "less.gguf", tiny_hf("llama"), without=["blk.1.ffn_up"])))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.001, 0.02, 0.3, 0.999])
def test_a_cut_file_is_one_sentence(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnavailableError, match=r"no usable model at .*tiny\.gguf") as caught:
        load(str(file))
    assert isinstance(caught.value, InputError)  # exit code 2


def test_a_file_that_is_exchanged_while_it_is_read_is_not_kept_under_the_name_of_the_first(file, tmp_path, monkeypatch):
    read = gguf._read

    def exchanged(path, *contents):
        write_gguf(file, tiny_hf("llama", seed=1))
        return read(path, *contents)

    first = file.read_bytes()
    monkeypatch.setattr(gguf, "_read", exchanged)
    with pytest.raises(InputError, match="which was written while it was read"):
        load(str(file))
    monkeypatch.setattr(gguf, "_read", read)
    file.write_bytes(first)
    with torch.no_grad():
        assert torch.allclose(logits(load(str(file))), tiny_hf("llama")(IDS).logits, atol=1e-5)


def test_more_blocks_than_tensors_are_refused_before_they_are_built(tmp_path):
    odd = write_gguf(tmp_path / "odd.gguf", tiny_hf("llama"), keys=[("add_uint32", "llama.block_count", 10**6)])
    with pytest.raises(InputError, match="with 1,000,000 blocks, and 21 tensors"):
        load(str(odd))
