"""Where long work can be stopped: before every pass, behind every block; and where it must not be."""

import pytest
import torch

from tests.tiny_models import tiny_hf, tiny_model
from workbench.errors import Cancelled
from workbench.intervene import Ablate, Head, hooks
from workbench.loading.pretrained import wrap
from workbench.models.hooks import LOGITS
from workbench.models.prompt import Prompt
from workbench.observation import Need, observe
from workbench.observation.reducers import token_loss
from workbench.pauses import is_pausing, is_whole, pause, pausing, whole


def test_an_observed_pass_pauses_before_it_begins_and_behind_every_block():
    model, told = tiny_model("llama", n_layers=3), []
    plain = observe(model, Prompt.ids([5, 9, 17]))
    with pausing(lambda: told.append(model.is_held)):
        paused = observe(model, Prompt.ids([5, 9, 17]))
        assert told == [False, True, True, True]
        told.clear()
        observe(model, [Prompt.ids([5, 9]), Prompt.ids([5, 9, 17])], batch_tokens=4, stop=2, positions="none")
        assert told == 2 * [False, True, True]  # of each batch
        told.clear()
        with hooks(model, [Ablate(Head(0, 1))]):  # who calls the model itself
            assert told == [False]
            model.adapter.forward(torch.tensor([[5, 9]]))
    assert torch.equal(paused.logits[0], plain.logits[0])


def test_the_losses_of_a_batch_pause_behind_every_prompt_and_others_may_run_there():
    model, told, short = tiny_model("llama", n_layers=3), [], Prompt.ids([5, 9])
    need, prompts = Need((LOGITS,), token_loss, dims="pos"), [Prompt.ids([5, 9, 17]), Prompt.ids([31, 2, 64, 8])]
    plain, alone = observe(model, prompts, (need,))[need], observe(model, short).logits[0]

    def between():
        if len(told) >= 4:
            with pausing(lambda: None):
                assert torch.equal(observe(model, short).logits[0], alone)
        told.append(model.is_held)

    with pausing(between):
        found = observe(model, prompts, (need,))[need]
    assert told == [False, True, True, True, False, False]  # behind the pass
    torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)


def test_what_a_pause_raises_ends_the_pass_and_leaves_no_hook():
    model, shares = tiny_model("llama", n_layers=3), []
    bare = observe(model, Prompt.ids([5, 9, 17])).logits[0]

    def stop():
        if model.is_held:
            raise Cancelled()

    with pausing(stop), pytest.raises(Cancelled):
        observe(model, Prompt.ids([5, 9, 17]), progress=shares.append)
    assert len(shares) == 1 and not model.is_held and not is_pausing()
    assert torch.equal(observe(model, Prompt.ids([5, 9, 17])).logits[0], bare)


def test_weights_that_are_taken_up_are_not_interrupted():
    """Who ran there would ask for the instrument that is being made, and wait for itself for ever."""
    hf = tiny_hf("llama")
    model, told = wrap(hf, None, name="held"), []
    with torch.no_grad():
        next(hf.parameters()).add_(0.01)
    with pausing(lambda: told.append(1)):
        before = model.made.weights_hash
        assert model.identity.weights_hash != before and told == []
        pause()
    assert told == [1]


def test_what_is_held_whole_is_so_until_its_end():
    assert not is_whole()
    with whole():
        with whole():
            assert is_whole()
        assert is_whole()
    assert not is_whole()
