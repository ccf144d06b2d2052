"""Two interventions that print alike are equal, in keys too: what writes other numbers prints otherwise."""

from dataclasses import replace

import pytest
import torch

from tests.tiny_models import spelling, tiny_hf, tiny_model
from workbench.errors import InputError
from workbench.intervene import Ablate, Attend, Head, Patch, Scale, Steer
from workbench.loading.pretrained import wrap
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, RESID_POST, K, Z
from workbench.models.prompt import Prompt
from workbench.observation import observe
from workbench.observation.recording import measure_means, record, record_all

IDS = Prompt.ids([3, 1, 4, 1, 5])


def test_another_direction_in_the_same_value_is_another_one():
    along = torch.eye(32)
    first = Steer(1, along[0], 2.0)
    assert str(replace(first, direction=along[1])) != str(first)
    assert replace(first, direction=along[0]) == first


def test_means_say_how_the_text_was_cut_and_what_was_edited():
    model = wrap(tiny_hf("llama"), spelling(), name="reads")
    short, long = (measure_means(model, n_tokens=90, piece=piece) for piece in (9, 30))
    edited = measure_means(model.edited([Ablate(Head(0, 1))]), n_tokens=90, piece=9)
    for other in (long, edited):
        assert not torch.allclose(short.mean(Z, 1, model), other.mean(Z, 1, model))
        assert Ablate(Head(1, 0), "mean", short) != Ablate(Head(1, 0), "mean", other)
    assert str(measure_means(model, n_tokens=90, piece=9)) == str(short)


def test_a_recording_says_what_its_run_began_with():
    model = tiny_model("llama")
    plain = record(model, IDS, [RESID_POST])
    began = record(model, IDS, [RESID_POST], start=(1, torch.ones(1, 5, 32)))
    assert [layer for _, layer in began.values] == [1]  # it ran no other
    assert Patch(RESID_POST, 1, began) != Patch(RESID_POST, 1, plain)
    assert record(model, IDS, [RESID_POST], stop=1).digest == plain.digest  # the same numbers, fewer layers


def test_a_recording_says_the_edits_of_its_own_row():
    model = tiny_model("llama")
    edit = Ablate(Head(0, 2), rows=(1,))
    plain, edited = record_all(model, [IDS, IDS], [RESID_POST], interventions=[edit])
    assert not torch.equal(*(one.values[RESID_POST, 1] for one in (plain, edited)))
    assert Patch(RESID_POST, 1, plain) != Patch(RESID_POST, 1, edited)
    assert Patch(RESID_POST, 1, plain) == Patch(RESID_POST, 1, record(model, IDS, [RESID_POST]))


def test_what_lies_before_is_written_first_whatever_the_order():
    """Without a post-norm attn_result and attn_out are one place: what is set in the first must not undo the other."""
    model = tiny_model("llama")
    other = record(model, Prompt.ids([9, 2, 6, 5, 3]), [ATTN_RESULT])
    along = torch.linspace(-1, 1, 32)
    edits = [Patch(ATTN_RESULT, 1, other), Steer(1, along, hook=ATTN_OUT)]
    for order in (edits, edits[::-1]):
        seen = record(model, IDS, [ATTN_OUT], interventions=order)
        torch.testing.assert_close(seen.values[ATTN_OUT, 1], other.values[ATTN_RESULT, 1] + along)


def test_one_value_given_twice_is_two():
    """Equal ones contradict; the same object twice would be multiplied twice without a word."""
    model = tiny_model("llama")
    louder, along = Scale(Head(0, 1), 3.0), Steer(1, torch.ones(32), 0.5)
    for carried in (model, model.edited([Ablate(Head(1, 1))])):
        with pytest.raises(InputError, match="expected edits that do not contradict"):
            observe(carried, IDS, interventions=[louder, louder])
    with pytest.raises(InputError, match="expected edits that do not contradict"):
        observe(model.edited([louder, louder]), IDS)
    twice, once = (
        observe(model, IDS, interventions=given).logits[0] for given in ([along] * 2, [replace(along, strength=1.0)])
    )
    torch.testing.assert_close(twice, once)


def test_a_key_head_that_nobody_reads_is_refused():
    """What its only query head does is set behind it: patching it would change nothing, without a word."""
    for kind, n_readers in (("gpt2", 1), ("llama", 2)):
        model = tiny_model(kind)
        keys = Patch(K, 0, record(model, Prompt.ids([9, 2, 6, 5, 3]), [K]), units=(1,))
        told = Attend(Head(0, n_readers), "previous-token")  # the first head that reads key head 1
        for order in ([told, keys], [keys, told]):
            if n_readers > 1:  # another one still does
                changed = observe(model, IDS, interventions=order).logits[0]
                assert not torch.equal(changed, observe(model, IDS, interventions=[told]).logits[0])
                continue
            with pytest.raises(InputError, match="expected edits that do not contradict"):
                observe(model, IDS, interventions=order)
