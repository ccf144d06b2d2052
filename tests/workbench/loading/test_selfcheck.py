"""The self-check passes on sound models and fails, by name, on unsound ones."""

import pytest
import torch

from tests.tiny_models import KINDS, tiny_hf, tiny_model
from workbench.loading.bridge import BridgeAdapter
from workbench.loading.selfcheck import selfcheck, short_ids
from workbench.models import selfcheck as sc
from workbench.models.model import LayerWeights


@pytest.mark.parametrize("kind", KINDS)
def test_sound_models_pass(kind):
    check = tiny_model(kind).selfcheck
    assert check.passed, [item.sentence for item in check.items if not item.passed]
    assert len(check.items) == 7


def test_the_default_model_is_bit_equal_to_hugging_face(default_model):
    items = {item.name: item for item in default_model.selfcheck.items}
    assert items[sc.LOGITS_EQUAL].measured == 0
    assert default_model.selfcheck.passed and "7/7" in repr(default_model)


def failed(model, reference=None):
    return {item.name for item in selfcheck(model, reference).items if not item.passed}


def test_other_logits_fail():
    model = tiny_model("llama")
    with torch.no_grad():
        other = tiny_hf("llama", seed=1)(short_ids(96)).logits
    assert failed(model, other) == {sc.LOGITS_EQUAL}


def test_wrong_output_weights_fail(monkeypatch):
    model = tiny_model("qwen2")
    right = BridgeAdapter.weights

    def wrong(self, layer):
        w = vars(right(self, layer)) | {"W_O": right(self, layer).W_O.roll(1, 0)}
        return LayerWeights(**w)

    monkeypatch.setattr(BridgeAdapter, "weights", wrong)
    assert failed(model) == {sc.PARTS}


def test_a_readout_without_its_gain_fails():
    model = tiny_model("llama")
    object.__setattr__(model.readout, "norm", torch.nn.Identity())
    assert failed(model) == {sc.READOUT}


def test_failed_returns_items_by_name():
    check = tiny_model("llama").selfcheck
    assert check.failed((sc.ROWS,)) == []
    with pytest.raises(KeyError):
        check.failed(("no such item",))
