"""A model that carries interventions: every pass on it is edited once, as if they had been given to that pass."""

from functools import cache

import pytest
import torch

from probes import DirectLogitAttribution
from tests.tiny_models import tiny_model
from workbench.errors import InputError, RefusedError
from workbench.intervene import (
    MLP,
    Ablate,
    Add,
    Attend,
    Attention,
    AttentionEdge,
    Clamp,
    FreezeNormScale,
    FreezePatterns,
    Head,
    Knockout,
    Neurons,
    Patch,
    Residual,
    Steer,
    hooks,
    with_rows,
)
from workbench.models.hooks import (
    ATTN_OUT,
    LN_FINAL_SCALE,
    MLP_OUT,
    PATTERN,
    RESID_MID,
    RESID_POST,
    RESID_PRE,
    Z,
)
from workbench.models.prompt import Prompt
from workbench.observation import Need, keep, observe
from workbench.observation.metrics import make_metric
from workbench.observation.recording import measure_means, record
from workbench.observation.sweeps import base_run, values_of

CLEAN = Prompt.ids([3, 71, 16, 44, 9, 88, 27, 50])
OTHER = Prompt.ids([3, 70, 16, 45, 9, 86, 27, 51])
BEFORE = Need((RESID_PRE,), keep, dims="pos d_model")
AFTER = Need((RESID_POST,), keep, dims="pos d_model")
DIRECTION = torch.linspace(-2, 1, 32)


@cache
def four_layers(kind):
    """Four layers, so that a pass can start and stop on both sides of an edit."""
    return tiny_model(kind, n_layers=4)


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def model(request):
    """Grouped queries; sandwich norms with a sliding window."""
    return four_layers(request.param)


@cache
def of_every_kind(model):
    """Interventions by name; each changes the last logits of CLEAN."""
    source = record(model, OTHER, [Z, PATTERN, RESID_PRE, RESID_MID, RESID_POST])
    means = measure_means(model, [OTHER, Prompt.ids([5, 6, 7, 8])], hooks=(Z,))
    return {
        "knockout in all layers": [Knockout((7,), (2, 3), (0, 1, 2, 3))],
        "knockout of one head": [Knockout((-1, 4), (1,), (0, 3), heads=(2,))],
        "heads": [Ablate(Head(0, 1)), Ablate(Head(2, 3)), Ablate(Head(3, 0))],
        "mean": [Ablate(Head(2, 0), "mean", means)],
        "edge": [Ablate(AttentionEdge(2, 1, query=7, key=4))],
        "blocks": [Ablate(Attention(1)), Ablate(MLP(2))],
        "neurons": [Clamp(Neurons(2, (4, 8)), 3.0), Add(Neurons(1, (5,)), -4.0, positions=(7,))],
        "steered before a block": [Steer(2, DIRECTION, 1.5, RESID_PRE)],
        "steered behind a block": [Steer(1, DIRECTION, 1.5, positions=(-1, 3))],
        "steered output": [Steer(2, DIRECTION, -1.0, ATTN_OUT), Steer(3, DIRECTION, -1.0, MLP_OUT)],
        "a state": [Patch(RESID_PRE, 2, source, positions=(4, 7))],
        "a state by zero": [Ablate(Residual(2, 7))],
        "a state in the middle": [Patch(RESID_MID, 2, source, positions=(7,))],
        "a state behind": [Patch(RESID_POST, 1, source)],
        "patterns": [FreezePatterns(source)],
        "two at one place": [Steer(2, DIRECTION, hook=RESID_PRE), Steer(2, DIRECTION.flip(0), hook=RESID_PRE)],
    }


each = pytest.mark.parametrize("name", of_every_kind(four_layers("llama")))


def logits(model, *edits, prompt=CLEAN, **options):
    return observe(model, prompt, positions="all", interventions=edits, **options).logits[0]


# --- one pass ---------------------------------------------------------------------------------------------------------


@each
def test_a_carried_intervention_is_one_given_to_the_pass(model, name):
    edits, plain = of_every_kind(model)[name], logits(model)
    edited = model.edited(edits)
    seen, given = observe(edited, CLEAN, [AFTER]), observe(model, CLEAN, [AFTER], interventions=edits)
    assert torch.equal(seen[AFTER], given[AFTER]) and torch.equal(seen.logits[0], given.logits[0])
    assert [str(i) for i in seen.interventions] == [str(i) for i in given.interventions] == list(map(str, edits))
    assert (logits(edited)[-1] - plain[-1]).abs().max() > 1e-4
    assert torch.equal(logits(model), plain) and model.interventions == ()


def test_interventions_of_a_pass_come_on_top_of_those_that_are_carried(model):
    first, second = [Ablate(Head(1, 2)), Steer(2, DIRECTION)], [Knockout((7,), (3,), (2, 3)), Ablate(MLP(0))]
    both = logits(model, *first, *second)
    assert torch.equal(logits(model.edited(first), *second), both)
    assert torch.equal(logits(model.edited(first).edited(second)), both)
    assert torch.equal(logits(model.edited([*first, *second])), both)
    assert model.edited(first).edited(second).interventions == (*first, *second)
    seen = observe(model.edited(first), CLEAN, interventions=second)
    assert seen.interventions == (*first, *second)


def test_a_pass_may_write_where_the_model_is_already_edited(model):
    """What is carried is part of the model: a cell that patches a clamped head is a question, no contradiction."""
    source = record(model, OTHER, [Z])
    over = logits(model.edited([Ablate(Head(2, 1))]), Patch(Z, 2, source, units=(1,)))
    assert torch.equal(over, logits(model, Patch(Z, 2, source, units=(1,))))


def test_additive_ones_are_added_once(model):
    """To the number, not only to what another route of ours computes."""
    plain = observe(model, CLEAN, [BEFORE])[BEFORE]
    for start in (None, (1, plain[1][None, 0]), (2, plain[2][None, 0] + DIRECTION)):
        edited = model.edited([Steer(2, DIRECTION, hook=RESID_PRE)])
        seen = observe(edited, CLEAN, [BEFORE], start=start).array(BEFORE).sel(layer=2).values
        torch.testing.assert_close(torch.tensor(seen), plain[2] + DIRECTION, atol=2e-5, rtol=1e-4)
    neurons = model.edited([Add(Neurons(2, (5,)), 2.5)])
    found = record(neurons, CLEAN, [RESID_POST, MLP_OUT])
    again = observe(neurons, CLEAN, [AFTER], start=(2, plain[2]))
    torch.testing.assert_close(again[AFTER][0, 0], found.values[RESID_POST, 2], atol=2e-5, rtol=1e-4)


def test_several_prompts_of_unequal_length_are_all_edited(model):
    prompts = [CLEAN, Prompt.ids([8, 9, 10]), Prompt.ids([60, 2, 2, 61])]
    edits = [Steer(1, DIRECTION, positions=(-1,)), Ablate(Head(3, 1))]
    seen = observe(model.edited(edits), prompts, positions="all", batch_tokens=9)
    given = observe(model, prompts, positions="all", batch_tokens=9, interventions=edits)
    assert all(map(torch.equal, seen.logits, given.logits))


# --- passes that start or stop inside the model -----------------------------------------------------------------------


@each
def test_a_part_of_the_edited_run_is_that_part_of_the_whole(model, name):
    """Started with a state of the edited run, and stopped early."""
    edited = model.edited(of_every_kind(model)[name])
    full = observe(edited, CLEAN, [BEFORE, AFTER], positions="all")
    for layer in (1, 2, 3):
        again = observe(edited, CLEAN, [AFTER], positions="all", start=(layer, full[BEFORE][layer]))
        assert torch.equal(again.logits[0], full.logits[0])
        assert torch.equal(again[AFTER], full[AFTER][layer:])
        part = observe(edited, CLEAN, [AFTER], stop=layer, positions="none")
        assert torch.equal(part[AFTER], full[AFTER][:layer])


def test_a_given_state_is_not_edited_again_but_its_readers_read_it(model):
    """Patching resid_mid reads resid_pre of its layer, which is the state that the pass starts with."""
    source = record(model, OTHER, [RESID_MID])
    edited = model.edited([Patch(RESID_MID, 2, source)])
    full = observe(edited, CLEAN, [BEFORE], positions="all")
    assert torch.equal(logits(edited, start=(2, full[BEFORE][2])), full.logits[0])


def test_an_intervention_of_the_pass_itself_must_fire(model):
    """Only what is carried may lie before the start: who asks this pass for an edit it cannot make is told."""
    state = observe(model, CLEAN, [BEFORE])[BEFORE][2]
    with pytest.raises(RefusedError, match="did not fire"):
        observe(model.edited([Ablate(Head(0, 0))]), CLEAN, interventions=[Ablate(Head(1, 0))], start=(2, state))
    with pytest.raises(RefusedError, match="did not fire"):
        observe(model.edited([Ablate(Head(3, 0))]), CLEAN, interventions=[Ablate(Head(2, 0))], stop=2)


# --- sweeps -----------------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("carried", [True, False], ids=["carried by the model", "of the base"])
def test_sweeps_on_an_edited_run_equal_full_passes(model, name, carried):
    """Cells in every layer, before, at and behind the edits of the base; in a batch, and each by itself."""
    edits = of_every_kind(model)[name]
    on = model.edited(edits) if carried else model
    base = base_run(on, CLEAN, () if carried else edits)
    metric = make_metric(on, base.tokens, base.logits(on), target="#31", against="#7")
    source = record(model, Prompt.ids([3, 1, 2, 3, 4, 5, 6, 7]), [RESID_PRE, RESID_MID])
    cells = [[Ablate(Head(2, 2))], [Knockout((7,), (5,), (2,))], [Patch(RESID_PRE, 2, source, (6,))], []]
    cells += [[Ablate(Head(layer, 1))] for layer in (0, 1, 3)] + [[Patch(RESID_MID, 3, source, (7,))]]
    cells += [[Steer(2, DIRECTION, 0.5, RESID_PRE)], [Steer(3, DIRECTION, 0.5), Ablate(MLP(1))]]
    together, alone = values_of(on, base, cells, metric), values_of(on, base, cells, metric, batch_tokens=1)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    for value, cell in zip(together, cells, strict=True):
        last = logits(model.edited(edits), *cell)[-1]
        torch.testing.assert_close(value, last[31] - last[7], atol=2e-5, rtol=1e-4)
    assert base.value(on, metric) == pytest.approx(float(together[3]), abs=2e-5)


def test_a_sweep_goes_on_from_a_base_of_the_same_model(model):
    edited = model.edited([Ablate(Head(1, 1))])
    for one, other in ((model, edited), (edited, model)):
        base = base_run(one, CLEAN)
        metric = make_metric(one, base.tokens, base.logits(one), target="#31")
        with pytest.raises(InputError, match="a base of this model"):
            values_of(other, base, [[Ablate(Head(2, 0))]], metric)


# --- what else runs on the model --------------------------------------------------------------------------------------


def test_recordings_and_means_are_of_the_edited_run(model):
    edits = [Ablate(Head(1, 1)), Steer(2, DIRECTION)]
    edited = model.edited(edits)
    kept, given = record(edited, CLEAN, [Z, RESID_POST]), record(model, CLEAN, [Z, RESID_POST], interventions=edits)
    assert str(kept) == str(given) != str(record(model, CLEAN, [Z]))
    assert all(torch.equal(kept.values[site], given.values[site]) for site in kept.values)
    means = measure_means(edited, [CLEAN], hooks=(Z,))
    torch.testing.assert_close(means.values[Z, 3], given.values[Z, 3][1:].mean(0))
    assert not means.values[Z, 1][1].any()


def test_passes_of_ones_own_are_edited_inside_hooks(model):
    """As gradient studies run them."""
    edits, more = [Steer(1, DIRECTION), Ablate(Head(2, 1))], [Knockout((7,), (1,), (3,))]
    ids = torch.tensor([CLEAN.token_ids])
    with model.lock, torch.no_grad(), hooks(model.edited(edits), more):
        both = model.adapter.forward(ids)
    with model.lock, torch.no_grad(), hooks(model.edited(edits), []):
        carried = model.adapter.forward(ids)
    assert torch.equal(both[0], logits(model, *edits, *more)) and torch.equal(carried[0], logits(model, *edits))


def test_hooks_leave_out_what_is_not_reached_of_the_models_own_only(model):
    none = {"reached": lambda edit: False}
    with model.lock, torch.no_grad(), hooks(model.edited([Ablate(Head(0, 1))]), [Ablate(Head(2, 1))], **none):
        own = model.adapter.forward(torch.tensor([CLEAN.token_ids]))
    assert torch.equal(own[0], logits(model, Ablate(Head(2, 1))))


def how_many(state, site):
    """Interventions that the model of the site carries."""
    return state.new_full((len(state),), float(len(site.model.interventions)))


def test_a_reducer_sees_a_model_that_carries_the_interventions_of_the_pass(model):
    """Who makes an activation anew, from pattern and values say, must know what was written into it."""
    need, head = Need((RESID_PRE,), how_many), Ablate(Head(0, 1))
    count = lambda on, *edits: observe(on, CLEAN, [need], interventions=edits)[need].unique().tolist()
    assert count(model) == [0] and count(model, head) == [1] and count(model.edited([head]), Ablate(MLP(1))) == [2]
    assert count(model, head, Ablate(Head(1, 1), rows=(0,))) == [1] and model.interventions == ()


def test_it_shares_everything_else(model):
    edited = model.edited([Ablate(Head(0, 1))])
    assert edited.lock is model.lock and edited.adapter is model.adapter and edited.identity is model.identity
    assert model.edited([]) is model


def test_what_cannot_be_of_every_pass_is_refused(model):
    with pytest.raises(InputError, match="an intervention on all rows"):
        model.edited([Ablate(Head(0, 1), rows=(0,))])
    with pytest.raises(InputError, match="give keys"):  # of a sweep's batch each row would be told another row's
        tiny_model("llama").edited([Attend(Head(0, 1), torch.zeros(8, 6, dtype=torch.long))])
    with pytest.raises(InputError, match="an intervention inside the blocks"):
        model.edited([FreezeNormScale(record(model, CLEAN, [LN_FINAL_SCALE]))])
    with pytest.raises(InputError, match="L9H0"):
        model.edited([Ablate(Head(9, 0))])
    contradictory = model.edited([Ablate(Head(0, 1)), Ablate(Attention(0))])
    with pytest.raises(InputError, match="together with"):
        observe(contradictory, CLEAN)


def test_one_prompt_of_several_has_the_interventions_of_its_row():
    """Beside an edited row, the other one's attention was taken for silenced: its heads had no share in a logit."""
    model, ask = tiny_model("llama"), DirectLogitAttribution(target="#5")
    prompt = Prompt.ids([4, 33, 80, 33, 12, 7])
    edit = Ablate(Attention(1))
    seen = observe(model, [prompt, prompt], ask.needs(model, range(6)), interventions=[with_rows(edit, 0)])
    for row, alone in ((0, ask.run(model, prompt, interventions=[edit])), (1, ask.run(model, prompt))):
        one = seen.prompt(row)
        assert [str(i) for i in one.interventions] == ([str(edit)] if row == 0 else [])
        torch.testing.assert_close(
            torch.tensor(ask.analyse(one)["attribution"].values),
            torch.tensor(alone["attribution"].values),
            atol=1e-5,
            rtol=0,
        )
