"""The self-check passes on sound models and fails, by name, on unsound ones."""

from dataclasses import replace

import pytest
import torch

from tests.tiny_models import KINDS, spelling, tiny_hf, tiny_model
from workbench.loading.bridge import BridgeAdapter
from workbench.loading.pretrained import wrap
from workbench.loading.selfcheck import LENGTH, check_ids, selfcheck
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models import selfcheck as sc
from workbench.models.hooks import ATTN_RESULT, PATTERN, Z
from workbench.models.model import LayerWeights


@pytest.mark.parametrize("kind", KINDS)
def test_sound_models_pass(kind):
    check = tiny_model(kind).selfcheck
    assert check.passed, [item.sentence for item in check.items if not item.passed]
    assert {name for name in vars(sc).values() if isinstance(name, str) and " " in name} - {sc.__doc__} <= {
        item.name for item in check.items
    }


def test_the_default_model_is_bit_equal_to_hugging_face(default_model):
    items = {item.name: item for item in default_model.selfcheck.items}
    assert items[sc.LOGITS_EQUAL].measured == 0
    assert default_model.selfcheck.passed and f"self-check {len(items)}/{len(items)}" in repr(default_model)


def failed(model, reference=None):
    return {item.name for item in selfcheck(model, reference).items if not item.passed}


def test_other_logits_fail():
    model = tiny_model("llama")
    with torch.no_grad():
        other = tiny_hf("llama", seed=1)(check_ids(None, 96)[0]).logits
    assert failed(model, other) == {sc.LOGITS_EQUAL}


def test_wrong_output_weights_fail(monkeypatch):
    model = tiny_model("qwen2")
    right = BridgeAdapter.weights

    def wrong(self, layer):
        w = vars(right(self, layer)) | {"W_O": right(self, layer).W_O.roll(1, 0)}
        return LayerWeights(**w)

    monkeypatch.setattr(BridgeAdapter, "weights", wrong)
    assert failed(model) == {sc.PARTS, sc.edits_of(Z), sc.edits_of(ATTN_RESULT)}  # held against these weights, too


def test_a_readout_without_its_gain_fails():
    model = tiny_model("llama")
    object.__setattr__(model.readout, "norm", torch.nn.Identity())
    assert failed(model) == {sc.READOUT}


def test_failed_returns_items_by_name():
    check = tiny_model("llama").selfcheck
    assert check.failed((sc.ROWS,)) == []
    with pytest.raises(KeyError):
        check.failed(("no such item",))


def test_the_input_is_natural_text_behind_bos():
    """BOS before the first text alone: what holds behind it need not hold without, and the other way round."""
    ids, about = check_ids(spelling(), 96)
    assert ids.shape == (2, LENGTH) and ids[0, 0] == 0 and 0 not in ids[1] and ids[0, 1] == ord("T") - 31
    assert about == "2 texts of 24 tokens, one of them behind BOS"
    long, _ = check_ids(spelling(), 96, 500)
    assert long.shape == (2, 500) and torch.equal(long[:, :24], ids)
    fewer, about = check_ids(spelling(), 40)  # a vocabulary that the tokenizer's ids do not fit into
    assert fewer.max() < 40 and "do not fit" in about
    larger = spelling()
    larger.add_special_tokens({"bos_token": "<a token that the model has no row for>"})
    ids, about = check_ids(larger, 96)
    assert ids.max() < 96 and about == "2 texts of 24 tokens, without a BOS token"


def test_an_edit_that_is_thrown_away_fails_by_name(monkeypatch):
    """A model that goes on with what it had: the hook shows what was written, the pass does not use it."""
    model = tiny_model("gemma3")
    point = model.adapter.point(PATTERN, 1)
    original = type(point).__call__
    monkeypatch.setattr(
        type(point), "__call__", lambda self, x: (original(self, x), x)[1] if self is point else original(self, x)
    )
    assert sc.edits_of(PATTERN) in failed(model)


def test_a_window_that_the_sizes_do_not_say_fails(monkeypatch):
    model = tiny_model("gemma3")
    monkeypatch.setattr(model.adapter, "sizes", replace(model.sizes, windows=(7,)))
    assert failed(model) == {sc.VISIBLE}


@pytest.mark.parametrize("attention", ["softmax", "relu"])
def test_edits_are_proved_on_toys_of_either_attention(attention):
    torch.manual_seed(0)
    toy = wrap(ToyTransformer(ToyConfig(n_layers=2, d_mlp=32, norm="rms", attention=attention)), None, name="toy")
    unsound = {item.name for item in toy.selfcheck.items if not item.passed}
    assert unsound == (set() if attention == "softmax" else {sc.ROWS})  # whose rows do not sum to 1


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_mask_of_float64_is_no_score(kind):
    """As float32 it is infinite, and edits of queries and keys were said not to take effect."""
    model = wrap(tiny_hf(kind).double(), None, name="double")
    assert [item.name for item in model.selfcheck.items if not item.passed] == []
