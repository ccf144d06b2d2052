"""Interventions: exact where they have an exact answer, refused where they have none, and gone afterwards."""

import threading
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from tests.tiny_models import KINDS, tiny_hf, tiny_model
from tests.tiny_runs import Norms, StudyNorms
from workbench.analysis.run import run
from workbench.errors import InputError, RefusedError
from workbench.intervene import (
    MLP,
    Ablate,
    Add,
    Attend,
    Attention,
    AttentionEdge,
    AttentionKey,
    Clamp,
    FreezeNormScale,
    FreezePatterns,
    Head,
    Knockout,
    Neurons,
    Patch,
    Residual,
    Scale,
    Steer,
    hooks,
    units_of,
    with_rows,
)
from workbench.loading.pretrained import load, wrap
from workbench.models.hooks import (
    ATTN_OUT,
    LN_FINAL_SCALE,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    RESID_MID,
    RESID_POST,
    RESID_PRE,
    SCORES,
    V,
    Z,
)
from workbench.models.prompt import Prompt
from workbench.observation import observe
from workbench.observation.recording import measure_means, record, record_all

CLEAN = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])
CORRUPT = Prompt.ids([5, 17, 41, 23, 60, 8, 70, 30, 11, 9])
# Two ways of summing the same float32 products; what a wrong edit does is 1e-2 and more.
CLOSE = dict(atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    """Each tiny model, once for this file."""
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def llama():
    """Grouped queries, RMS norms."""
    return tiny_model("llama")


def logits(model, prompt=CLEAN, *interventions, **options):
    """Logits at every position."""
    return observe(model, [prompt], positions="all", interventions=interventions, **options).logits[0]


def test_a_full_clean_residual_stream_restores_the_clean_logits_exactly(model):
    sites = [RESID_PRE, RESID_POST] if model.sizes.parallel else [RESID_PRE, RESID_MID, RESID_POST]
    source, clean, corrupt = record(model, CLEAN, sites), logits(model), logits(model, CORRUPT)
    assert (clean - corrupt).abs().max() > 1e-2
    for site in sites:
        for layer in range(model.sizes.n_layers):
            patched = logits(model, CORRUPT, Patch(site, layer, source))
            assert torch.equal(patched, clean), (site, layer, (patched - clean).abs().max())


def test_patching_resid_mid_at_some_positions_is_patching_the_state_there(llama):
    """Against the definition: the block runs on from a state that is clean at one position only."""
    source = record(llama, CLEAN, [RESID_MID, RESID_POST])
    seen = record(llama, CORRUPT, [RESID_MID], interventions=[Patch(RESID_MID, 1, source, positions=(4,))])
    plain = record(llama, CORRUPT, [RESID_MID])
    there, other = seen.values[RESID_MID, 1], plain.values[RESID_MID, 1]
    torch.testing.assert_close(there[4], source.values[RESID_MID, 1][4], **CLOSE)
    assert torch.equal(there[:4], other[:4]) and torch.equal(there[5:], other[5:])


def test_parallel_blocks_have_no_resid_mid():
    neox = tiny_model("neox")
    source = record(neox, CLEAN, [RESID_PRE])
    with pytest.raises(InputError, match="side by side"):
        logits(neox, CORRUPT, Patch(RESID_MID, 0, source))


def test_a_patch_from_the_same_run_changes_nothing(model):
    sites = (RESID_PRE, RESID_POST, ATTN_OUT, MLP_OUT, MLP_POST, Z, V, PATTERN)
    source, clean = record(model, CLEAN, sites), logits(model)
    for site in sites:
        assert torch.equal(logits(model, CLEAN, Patch(site, 1, source)), clean), site


def test_patching_every_head_is_patching_attention(model):
    source = record(model, CLEAN, [Z, ATTN_OUT])
    heads = [Patch(Z, 1, source, units=(head,)) for head in range(model.sizes.n_heads)]
    by_head, whole = logits(model, CORRUPT, *heads), logits(model, CORRUPT, Patch(ATTN_OUT, 1, source))
    torch.testing.assert_close(by_head, whole, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_ablation_by_zero_equals_editing_the_weights(kind):
    edited, intact = wrap(tiny_hf(kind), None, name="edited"), tiny_model(kind)
    layer, head, d_head = 1, 2, intact.sizes.d_head
    columns = slice(head * d_head, (head + 1) * d_head)
    with torch.no_grad():
        if kind == "gpt2":
            edited.adapter.hf_model.transformer.h[layer].attn.c_proj.weight[columns] = 0
        elif kind == "neox":
            edited.adapter.hf_model.gpt_neox.layers[layer].attention.dense.weight[:, columns] = 0
        else:
            edited.adapter.hf_model.model.layers[layer].self_attn.o_proj.weight[:, columns] = 0
    ablated = logits(intact, CLEAN, Ablate(Head(layer, head)))
    torch.testing.assert_close(ablated, logits(edited), **CLOSE)
    assert (ablated - logits(intact)).abs().max() > 1e-3


def test_keys_from_the_end_are_counted_in_each_prompt_of_a_batch(llama):
    """Beside a longer one the end of a short prompt is not that of the batch."""
    short, cut = Prompt.ids([5, 17, 40, 23]), [Knockout((-1,), (-3, -2), (0, 1))]
    alone = observe(llama, short, interventions=cut).logits[0]
    together = observe(llama, [CLEAN, short], interventions=cut).logits
    assert (alone - observe(llama, short).logits[0]).abs().max() > 1e-2
    torch.testing.assert_close(together[1], alone, **CLOSE)
    torch.testing.assert_close(together[0], observe(llama, CLEAN, interventions=cut).logits[0], **CLOSE)
    for beyond in (Knockout((3,), (7,), (0,)), Ablate(AttentionKey(0, 1, 7))):
        with pytest.raises(InputError, match="key 7"):
            observe(llama, [CLEAN, short], interventions=[beyond])


@pytest.mark.parametrize(
    "given",
    [
        ["L1H2"], "L1H2", [Head(1, 2)], [Ablate], [[Ablate(Head(1, 2))]], [None], None, Ablate(Head(1, 2)),
        [Steer(0, torch.ones(2, 32))], [Steer(0, torch.ones(3, 32), positions=(1, 2))], [Steer(0, torch.ones(()))],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_intervention_is_refused_in_a_sentence(llama, given):
    with pytest.raises(InputError):
        observe(llama, CLEAN, interventions=given)
    with pytest.raises(InputError):
        run(llama, CLEAN, [StudyNorms()], interventions=given)


@pytest.mark.parametrize("number", ["1", 1.0, None, True, torch.nan, (1,)], ids=str)
def test_a_unit_is_of_whole_numbers(number):
    for made in (lambda: Head(number, 2), lambda: Head(1, number), lambda: MLP(number), lambda: Residual(0, [number])):
        with pytest.raises(InputError, match="expected a whole number"):
            made()
    with pytest.raises(InputError, match="neurons"):
        Neurons(0, (number,))


def test_a_unit_takes_numbers_of_any_kind_and_lists():
    assert Head(np.int64(1), torch.tensor(2)) == Head(1, 2)
    assert hash(Neurons(0, [3, 4])) == hash(Neurons(0, (3, 4))) and str(Neurons(0, np.arange(2))) == "L0N0,1"


def test_a_direction_may_be_numbers_of_any_kind(llama):
    kinds = (torch.ones(32), np.ones(32), [1.0] * 32, torch.ones(10, 32))
    ones = [observe(llama, CLEAN, interventions=[Steer(0, given)]).logits[0] for given in kinds]
    assert all(torch.equal(one, ones[0]) for one in ones[1:])


def test_ablating_neurons_equals_editing_w_out():
    edited, intact = wrap(tiny_hf("llama"), None, name="edited"), tiny_model("llama")
    with torch.no_grad():
        edited.adapter.hf_model.model.layers[0].mlp.down_proj.weight[:, [3, 50]] = 0
    torch.testing.assert_close(logits(intact, CLEAN, Ablate(Neurons(0, (3, 50)))), logits(edited), **CLOSE)


def test_ablating_a_block_removes_what_it_adds(model):
    without = record(
        model, CLEAN, [RESID_PRE, MLP_OUT, RESID_POST], interventions=[Ablate(Attention(0)), Ablate(MLP(1))]
    )
    values = without.values
    torch.testing.assert_close(values[RESID_PRE, 0] + values[MLP_OUT, 0], values[RESID_POST, 0], **CLOSE)
    assert not values[MLP_OUT, 1].any()


def test_mean_ablation_writes_the_mean_of_positions_from_one_and_spares_position_0(model):
    reference = [Prompt.ids([9, 8, 7, 6, 5, 4]), Prompt.ids([30, 31, 32])]
    means = measure_means(model, reference, hooks=(Z, MLP_POST))
    runs = record_all(model, reference, [Z])
    expected = torch.cat([run.values[Z, 1][1:, 3] for run in runs]).mean(0)
    assert means.n_tokens == 7
    z = record(model, CLEAN, [Z], interventions=[Ablate(Head(1, 3), "mean", means)]).values[Z, 1]
    plain = record(model, CLEAN, [Z]).values[Z, 1]
    torch.testing.assert_close(z[1:, 3], expected.expand(9, -1))
    assert torch.equal(z[0], plain[0]) and torch.equal(z[:, :3], plain[:, :3])
    with pytest.raises(InputError, match="position"):
        logits(model, CLEAN, Ablate(Head(1, 3), "mean", means, positions=(0,)))


def test_resampling_writes_the_other_prompts_output(llama):
    source = record(llama, CORRUPT, [Z, RESID_PRE])
    ablated = logits(llama, CLEAN, Ablate(Head(1, 3), "resample", source))
    assert torch.equal(ablated, logits(llama, CLEAN, Patch(Z, 1, source, units=(3,))))
    state = logits(llama, CLEAN, Ablate(Residual(1), "resample", source, positions=(4,)))
    assert torch.equal(state, logits(llama, CLEAN, Patch(RESID_PRE, 1, source, positions=(4,))))


def test_knockout_equals_an_explicit_mask(model):
    """Against softmax over the remaining keys, from recorded scores; and the pattern sums to 1 again."""
    cut = Knockout((-1, 5), (2, 3), (1,), heads=(0, 3))
    scores = record(model, CLEAN, [SCORES]).values[SCORES, 1].clone()
    for head in (0, 3):
        for query in (9, 5):
            scores[head, query, [2, 3]] = -torch.inf
    pattern = record(model, CLEAN, [PATTERN], interventions=[cut]).values[PATTERN, 1]
    torch.testing.assert_close(pattern, scores.softmax(-1), **CLOSE)
    replaced = record(model, CLEAN, [PATTERN])
    replaced.values[PATTERN, 1].copy_(scores.softmax(-1))
    torch.testing.assert_close(logits(model, CLEAN, cut), logits(model, CLEAN, Patch(PATTERN, 1, replaced)), **CLOSE)


def test_a_query_never_loses_its_only_key(model):
    with pytest.raises(InputError, match="only key"):
        logits(model, CLEAN, Knockout((0,), (0,), (1,)))
    with pytest.raises(InputError, match="only key"):
        logits(model, CLEAN, Knockout((2,), (0, 1, 2), (0,)))


def test_a_sliding_windows_only_keys_count():
    gemma = tiny_model("gemma3")  # layer 0 sees 8 tokens back
    with pytest.raises(InputError, match="only key"):
        logits(gemma, CLEAN, Knockout((9,), tuple(range(2, 10)), (0,)))
    assert torch.isfinite(logits(gemma, CLEAN, Knockout((9,), tuple(range(2, 10)), (1,)))).all()


def test_an_ablated_edge_takes_one_value_out_of_z(llama):
    plain = record(llama, CLEAN, [PATTERN, V, Z])
    z = record(llama, CLEAN, [Z], interventions=[Ablate(AttentionEdge(1, 3, query=7, key=2))]).values[Z, 1]
    expected = plain.values[Z, 1].clone()
    expected[7, 3] -= plain.values[PATTERN, 1][3, 7, 2] * plain.values[V, 1][2, 1]  # head 3 reads key/value head 1
    torch.testing.assert_close(z, expected, **CLOSE)


def test_a_hidden_key_is_a_knockout_from_all_queries_that_see_another(model):
    for key, queries in ((0, range(1, 10)), (4, range(4, 10))):
        hidden = logits(model, CLEAN, Ablate(AttentionKey(1, 2, key)))
        cut = logits(model, CLEAN, Knockout(tuple(queries), (key,), (1,), heads=(2,)))
        assert torch.equal(hidden, cut) and not torch.equal(hidden, logits(model))


def test_a_state_by_its_name_is_a_state_at_a_position(llama):
    by_name = logits(llama, CLEAN, Ablate(Residual(1, 4)))
    assert torch.equal(by_name, logits(llama, CLEAN, Ablate(Residual(1), positions=(4,))))
    with pytest.raises(InputError, match="names none"):
        logits(llama, CLEAN, Ablate(Residual(1, 4), positions=(3,)))


def test_units_are_read_as_they_are_printed():
    text = "L18H6 L5H3:4<-1 L0H2 key 0 L20N507 L20N507,9 L20 MLP L3 attention L12 pos 5"
    units = units_of(text)
    assert " ".join(map(str, units)) == text
    assert units == (
        Head(18, 6),
        AttentionEdge(5, 3, query=4, key=1),
        AttentionKey(0, 2, 0),
        Neurons(20, (507,)),
        Neurons(20, (507, 9)),
        MLP(20),
        Attention(3),
        Residual(12, 5),
    )
    assert units_of(" l1h2, L20 mlp ") == (Head(1, 2), MLP(20)) and units_of("") == ()


@pytest.mark.parametrize("text", ["head 3", "L1", "L1H2x", "L1H", "L1H2:3", "L1H2 key", "L20mlp", "L1H2; rm"])
def test_names_of_no_unit_are_refused(text):
    with pytest.raises(InputError, match="unreadable from"):
        units_of(text)


def test_clamping_and_adding_to_neurons(model):
    plain = record(model, CLEAN, [MLP_POST]).values[MLP_POST, 0]
    clamp, add = Clamp(Neurons(0, (4, 9)), 1.5, positions=(3,)), Add(Neurons(0, (4,)), -2.0, positions=(6, -1))
    seen = record(model, CLEAN, [MLP_POST], interventions=[clamp, add]).values[MLP_POST, 0]
    expected = plain.clone()
    expected[3, [4, 9]] = 1.5
    expected[[6, 9], 4] -= 2.0
    torch.testing.assert_close(seen, expected)


def test_steering_adds_a_direction_at_every_site(model):
    direction = torch.linspace(-1, 1, model.sizes.d_model)
    for site in (RESID_PRE, RESID_POST, ATTN_OUT, MLP_OUT):
        plain = record(model, CLEAN, [site]).values[site, 1]
        steer = Steer(1, direction, 0.5, site, positions=(2, -1))
        seen = record(model, CLEAN, [site], interventions=[steer]).values[site, 1]
        expected = plain.clone()
        expected[[2, 9]] += 0.5 * direction
        torch.testing.assert_close(seen, expected)


def test_steering_the_same_place_twice_adds_up(llama):
    direction = torch.ones(llama.sizes.d_model)
    twice = logits(llama, CLEAN, Steer(0, direction, 1.0), Steer(0, 2 * direction, 1.0))
    torch.testing.assert_close(twice, logits(llama, CLEAN, Steer(0, direction, 3.0)), **CLOSE)


@pytest.mark.parametrize("hook", [RESID_PRE, RESID_POST, MLP_OUT])
def test_a_state_that_the_norm_reads_only_as_rounding_is_refused(hook):
    """A norm with a mean takes the direction of ones away, exactly in exact arithmetic; a gain of it is no effect."""
    gpt2, llama = tiny_model("gpt2"), tiny_model("llama")
    ones = torch.ones(32)
    torch.testing.assert_close(logits(gpt2, CLEAN, Steer(0, ones, 30.0, hook)), logits(gpt2), atol=1e-3, rtol=1e-3)
    far = Steer(0, -ones, 3e6, hook, positions=(2,))
    with pytest.raises(RefusedError, match=r"Steer\(L0 .*rounding"):
        logits(gpt2, CLEAN, far)
    assert logits(llama, CLEAN, far).isfinite().all()  # its norm takes no mean away: the state is that direction
    zig = torch.tensor([1.0, -1.0]).repeat(16)
    assert logits(gpt2, CLEAN, Steer(0, zig, 3e6, hook, positions=(2,))).isfinite().all()


@pytest.mark.parametrize(
    ("make", "near"),
    [
        (lambda x: Scale(Head(0, 1), x), 1.0 + 1e-12),
        (lambda x: Clamp(Neurons(1, (3,)), x), 1.0 - 1e-9),
        (lambda x: Add(Neurons(1, (3,)), x), 1.0000001),
        (lambda x: Steer(0, torch.ones(32), x), 1.00000001),
    ],
)
def test_numbers_that_differ_at_all_are_other_edits_and_what_is_no_number_is_said(make, near):
    """What prints alike has one key, so what is kept of one would be shown for the other."""
    assert make(1) == make(1.0) != make(near) and str(make(2.5)) == str(make(2.50))
    for wrong in ("2", None, 1j, float("nan"), torch.ones(2)):
        with pytest.raises(InputError, match="one finite number"):
            make(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Clamp(Head(0, 1), 2.0),  # neuron 1 of layer 0 would be set
        lambda: Add(MLP(0), 1.0),
        lambda: Ablate("L0H1"),
        lambda: Ablate(Head),
        lambda: Ablate(Residual(0, 1.5)),  # cut to position 1
        lambda: Ablate(AttentionEdge(0, 1, 2.5, 1)),
        lambda: Ablate(AttentionKey(0, 1, 0.5)),
        lambda: Ablate(Neurons(0, (1.5,))),
        lambda: Ablate(Head(0, 1), positions=(1.5,)),
        lambda: Scale(Head(0, 1), 2.0, positions="last"),
        lambda: Knockout(3, (1,), (0,)),
        lambda: Knockout((3,), (1,), ("1",)),
        lambda: Knockout((3,), (1,), (0,), heads="1"),
        lambda: Ablate(Head(0, 1), "mean", torch.ones(8)),
        lambda: Attend(Head(0, 1), torch.tensor([-7, 0, 1, 2, 3])),
        lambda: Attend(Head(0, 1), torch.tensor([0.0, 0, 1, 2, 3])),
        lambda: Attend(MLP(0), "own-token"),
    ],
)  # fmt: skip
def test_units_and_places_of_another_kind_are_refused_and_not_read_as_others(llama, make):
    with pytest.raises(InputError):
        observe(llama, CLEAN, interventions=[make()])


def test_a_model_that_is_not_instrumented_is_said():
    hf = tiny_hf("llama")
    for call in (lambda: observe(hf, CLEAN), lambda: run(hf, CLEAN, [Norms()]), lambda: load(hf), lambda: load(None)):
        with pytest.raises(InputError, match=r"wrap\("):
            call()


def test_numbers_of_any_library_are_whole_ones(llama):
    """NumPy's and PyTorch's, and lists, are the same places."""
    places = [(1, 2), [1, 2], np.array([1, 2]), torch.tensor([1, 2]), range(1, 3)]
    assert len({Ablate(Head(0, 1), positions=one) for one in places}) == 1
    keys = [0, 0, 1, -1, 3]
    assert Attend(Head(0, 1), keys) == Attend(Head(0, 1), torch.tensor(keys, dtype=torch.int32))


def test_a_direction_is_what_it_was_when_it_was_given(llama):
    direction = torch.linspace(-1, 1, 32)
    steer, before = Steer(0, direction), logits(llama, CLEAN, Steer(0, direction.clone()))
    direction *= 3
    assert torch.equal(logits(llama, CLEAN, steer), before) and steer != Steer(0, direction)


def test_the_callers_autocast_and_default_device_change_no_number(llama):
    source = record(llama, CORRUPT, [Z])
    edit, plain = Patch(Z, 0, source), run(llama, CLEAN, [Norms()])["norms"]
    before = logits(llama, CLEAN, edit)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(logits(llama, CLEAN, edit), before)
        assert run(llama, CLEAN, [Norms()])["norms"].equals(plain)
        assert torch.is_autocast_enabled("cpu")  # the caller's own work goes on in it
    torch.set_default_device("meta")  # which holds no number
    try:
        assert torch.equal(logits(llama, CLEAN, edit), before) and torch.get_default_device().type == "meta"
        assert run(llama, CLEAN, [Norms()])["norms"].equals(plain)
    finally:
        torch.set_default_device(None)


def test_a_frozen_norm_scale_makes_the_logits_linear_in_the_last_state(model):
    """Twice the direction moves the logits twice as far; with a free scale it does not."""
    source = record(model, CLEAN, [LN_FINAL_SCALE])
    direction, last = torch.linspace(-1, 1, model.sizes.d_model), model.sizes.n_layers - 1

    def moved(strength, *more):
        return logits(model, CLEAN, Steer(last, direction, strength), *more) - logits(model)

    frozen = FreezeNormScale(source)
    torch.testing.assert_close(logits(model, CLEAN, frozen), logits(model), **CLOSE)
    torch.testing.assert_close(2 * moved(1.0, frozen), moved(2.0, frozen), atol=1e-4, rtol=1e-4)
    assert (2 * moved(1.0) - moved(2.0)).abs().max() > 1e-3


def test_frozen_patterns_look_where_the_other_run_looked(model):
    source = record(model, CORRUPT, [PATTERN])
    seen = record(model, CLEAN, [PATTERN], interventions=[FreezePatterns(source)])
    for layer in range(model.sizes.n_layers):
        assert torch.equal(seen.values[PATTERN, layer], source.values[PATTERN, layer])


def test_rows_make_a_sweep_one_batch(model):
    source = record(model, CORRUPT, [Z, RESID_PRE])
    cells = [
        Ablate(Head(0, 1)),
        Patch(Z, 1, source, units=(2,), positions=(-1,)),
        Knockout((9,), (3,), (0, 1)),
        Patch(RESID_PRE, 1, source, positions=(4,)),
        Steer(1, torch.ones(model.sizes.d_model)),
    ]
    together = observe(
        model,
        [CLEAN] * 6,
        positions="all",
        interventions=[with_rows(cell, row) for row, cell in enumerate(cells)],
        batch_tokens=30,  # two batches: rows count over the call
    ).logits
    for row, cell in enumerate(cells):
        torch.testing.assert_close(together[row], logits(model, CLEAN, cell), **CLOSE)
    torch.testing.assert_close(together[5], logits(model), **CLOSE)


def test_positions_count_from_each_prompts_own_end(llama):
    short = Prompt.ids([5, 17, 40, 23])
    edit = Steer(1, torch.ones(llama.sizes.d_model), positions=(-1,))
    both = observe(llama, [short, CLEAN], positions="all", interventions=[edit]).logits
    torch.testing.assert_close(both[0], logits(llama, short, edit), **CLOSE)
    torch.testing.assert_close(both[1], logits(llama, CLEAN, edit), **CLOSE)


UNITS = [
    Ablate(Head(2, 0)),
    Ablate(Head(0, 4)),
    Ablate(Attention(-1)),
    Ablate(MLP(7)),
    Ablate(Neurons(0, (64,))),
    Ablate(Neurons(0, ())),
    Ablate(Head(0, 0), "median"),
    Ablate(Head(0, 0), "mean"),
    Ablate(AttentionEdge(0, 0, query=2, key=3)),
    Ablate(Residual(0), positions=(10,)),
    Ablate(Residual(0, 10)),
    Ablate(AttentionKey(0, 4, 0)),
    Ablate(AttentionKey(0, 0, 10)),
    Ablate(AttentionKey(0, 0, 3), positions=(4,)),
    Clamp(Neurons(5, (0,)), 0.0),
    Steer(0, torch.ones(3)),
    Steer(0, torch.ones(32), hook=Z),
    Knockout((9,), (3,), (4,)),
    Knockout((9,), (), (0,)),
    Knockout((9,), (30,), (0,)),
    Ablate(Head(0, 0), rows=(3,)),
]


@pytest.mark.parametrize("edit", UNITS, ids=str)
def test_units_that_do_not_exist_are_refused(llama, edit):
    with pytest.raises(InputError):
        logits(llama, CLEAN, edit)


def test_sources_must_fit(llama):
    source = record(llama, CLEAN, [Z])
    with pytest.raises(InputError, match="equal length"):
        logits(llama, Prompt.ids([1, 2, 3]), Patch(Z, 0, source))
    with pytest.raises(InputError, match="Record it too"):
        logits(llama, CLEAN, Patch(V, 0, source))
    with pytest.raises(InputError, match="another model"):
        logits(tiny_model("qwen2"), CLEAN, Patch(Z, 0, source))
    with pytest.raises(InputError, match="key_value_head"):
        logits(llama, CLEAN, Patch(V, 0, record(llama, CLEAN, [V]), units=(3,)))
    with pytest.raises(InputError, match="patching scores"):
        logits(llama, CLEAN, Patch(SCORES, 0, source))


def contradictions(model):
    source = record(model, CORRUPT, [Z, RESID_PRE, RESID_MID, RESID_POST, ATTN_OUT, PATTERN])
    ones = torch.ones(model.sizes.d_model)
    return [
        (Ablate(Head(0, 1)), Patch(Z, 0, source, units=(1,))),
        (Ablate(Head(0, 1)), Ablate(Attention(0))),
        (Clamp(Neurons(0, (3,)), 1.0), Clamp(Neurons(0, (3, 4)), 2.0)),
        (Clamp(Neurons(0, (3,)), 1.0), Add(Neurons(0, (3,)), 2.0)),
        (Clamp(Neurons(0, (3,)), 1.0), Ablate(MLP(0))),
        (Patch(RESID_PRE, 1, source, positions=(9,)), Steer(1, ones, hook=RESID_PRE, positions=(-1,))),
        (Patch(RESID_MID, 0, source), Ablate(Head(0, 0))),
        (Patch(RESID_POST, 0, source), Ablate(MLP(0))),
        (FreezePatterns(source), Knockout((9,), (3,), (1,))),
        (Ablate(Head(0, 1), rows=(0,)), Patch(Z, 0, source)),
    ]


def test_contradictions_are_refused(llama):
    for pair in contradictions(llama):
        for order in (pair, pair[::-1]):
            with pytest.raises(InputError, match="together with"):
                logits(llama, CLEAN, *order)


@pytest.mark.parametrize("order", [1, -1])
def test_one_position_under_two_names_is_one_place_beside_a_longer_prompt(llama, order):
    """-2 of five tokens is 3; with another length in the batch, each prompt is looked at by itself."""
    five, ones = Prompt.ids([9, 8, 7, 6, 5]), torch.ones(llama.sizes.d_model)
    source = record(llama, five, [RESID_PRE])
    by_end = Steer(1, ones, hook=RESID_PRE, positions=(-2,))
    for patch in (Patch(RESID_PRE, 1, source, positions=(3,), rows=(0,)), Ablate(Residual(1), positions=(3,))):
        with pytest.raises(InputError, match="together with"):
            observe(llama, [five, CLEAN], interventions=[by_end, patch][::order])
    elsewhere = Patch(RESID_PRE, 1, source, positions=(2,), rows=(0,))
    observe(llama, [five, CLEAN], interventions=[by_end, elsewhere][::order])
    second = Ablate(Residual(1), positions=(3,), rows=(1,))  # of ten tokens, where -2 is 8
    observe(llama, [five, CLEAN], interventions=[by_end, second][::order])
    observe(llama, [five, CLEAN], interventions=[by_end, second][::order], batch_tokens=1)


def test_edits_of_different_places_compose(llama):
    source = record(llama, CORRUPT, [Z, RESID_PRE])
    logits(llama, CLEAN, Ablate(Head(0, 1)), Patch(Z, 0, source, units=(2,)), Ablate(MLP(1)))
    logits(llama, CLEAN, Patch(RESID_PRE, 1, source, positions=(3,)), Patch(RESID_PRE, 1, source, positions=(4,)))
    pair = [Ablate(Head(0, 1), rows=(0,)), Ablate(Attention(0), rows=(1,))]
    observe(llama, [CLEAN, CLEAN], interventions=pair)


def test_an_edit_that_does_not_fire_raises(llama):
    states = record(llama, CLEAN, [RESID_PRE]).values[RESID_PRE, 1][None]
    with pytest.raises(RefusedError, match="did not fire"):
        observe(llama, [CLEAN], interventions=[Ablate(Head(0, 1))], start=(1, states))
    with pytest.raises(RefusedError, match="did not fire"):
        observe(llama, [CLEAN], interventions=[Ablate(Head(1, 1))], positions="none", stop=1)


def n_hooks(model):
    return sum(len(module._forward_hooks) for module in model.adapter.bridge.modules())


def test_no_trace_is_left_also_after_an_error(llama):
    before, count = logits(llama), n_hooks(llama)
    source = record(llama, CORRUPT, [RESID_MID])
    logits(llama, CLEAN, Ablate(Head(0, 1)), Patch(RESID_MID, 1, source), Knockout((9,), (2,), (0,)))
    assert torch.equal(logits(llama), before) and n_hooks(llama) == count
    with pytest.raises(InputError):
        logits(llama, CLEAN, Ablate(Head(0, 1)), Knockout((0,), (0,), (1,)))
    with pytest.raises(ZeroDivisionError), llama.lock, hooks(llama, [Ablate(Head(1, 1))]):
        raise ZeroDivisionError
    assert torch.equal(logits(llama), before) and n_hooks(llama) == count


def test_two_threads_do_not_see_each_others_edits(llama):
    plain, ablated = logits(llama), logits(llama, CLEAN, Ablate(Head(1, 2)))
    wrong = []

    def work(edits, expected):
        for _ in range(20):
            if not torch.equal(logits(llama, CLEAN, *edits), expected):
                wrong.append(edits)

    threads = [threading.Thread(target=work, args=a) for a in (((), plain), ((Ablate(Head(1, 2)),), ablated))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_values_are_frozen_print_what_they_refer_to_and_compare_by_it(llama):
    source, other = record(llama, CLEAN, [Z]), record(llama, CORRUPT, [Z])
    edit = Patch(Z, 1, source, units=(2,), positions=(-1,), rows=(0,))
    assert source.digest in str(edit) and str(edit) != str(Patch(Z, 1, other, units=(2,), positions=(-1,), rows=(0,)))
    assert edit == Patch(Z, 1, record(llama, CLEAN, [Z]), units=(2,), positions=(-1,), rows=(0,))
    assert len({Steer(0, torch.ones(32)), Steer(0, torch.ones(32)), Steer(0, torch.zeros(32))}) == 2
    with pytest.raises(FrozenInstanceError):
        edit.layer = 0
    seen = observe(llama, [CLEAN], interventions=[edit])
    assert [str(i) for i in seen.interventions] == [str(edit)]


def test_toys_take_the_same_edits():
    toy = load("toy-induction")
    prompt, corrupt = Prompt.ids([3, 9, 27, 3, 9]), Prompt.ids([3, 9, 27, 3, 8])
    source = record(toy, prompt, [RESID_PRE, RESID_POST])
    for site in (RESID_PRE, RESID_POST):
        assert torch.equal(logits(toy, corrupt, Patch(site, 1, source)), logits(toy, prompt))
    assert logits(toy, prompt)[-1].argmax() == 27
    assert logits(toy, prompt, Ablate(Head(1, 0)))[-1].abs().max() == 0
    with pytest.raises(InputError, match="no MLP"):
        logits(toy, prompt, Ablate(MLP(0)))
    with pytest.raises(InputError, match="final norm"):
        logits(toy, prompt, FreezeNormScale(source))


def test_a_block_that_was_cut_narrower_has_fewer_neurons():
    """Pruned by its holder: the configuration says 64 neurons, and one block has 50 of them."""
    hf = tiny_hf("neox")
    mlp = hf.gpt_neox.layers[1].mlp
    mlp.dense_h_to_4h, mlp.dense_4h_to_h = torch.nn.Linear(32, 50), torch.nn.Linear(50, 32)
    model = wrap(hf, None)
    assert (model.n_neurons(0), model.n_neurons(1)) == (64, 50) == (model.sizes.d_mlp, 50)
    assert not torch.equal(logits(model, CLEAN, Clamp(Neurons(1, (49,)), 9.0)), logits(model, CLEAN))
    source = record(model, CLEAN, [MLP_POST], layers=(1,))
    for edit in (Ablate(Neurons(1, (50,))), Patch(MLP_POST, 1, source, units=(63,))):
        with pytest.raises(InputError, match="0 to 49"):
            logits(model, CLEAN, edit)


@pytest.mark.parametrize("made", [lambda **at: Ablate(Head(1, 2), **at), lambda **at: Scale(MLP(0), 2.0, **at)])
@pytest.mark.parametrize("at", [{"positions": ()}, {"rows": ()}])
def test_an_edit_of_nothing_is_none(made, at):
    """What is computed may come out empty; an ablation that did nothing is worse than none."""
    with pytest.raises(InputError, match=f"at no {next(iter(at))[:-1]} at all"):
        made(**at)


@pytest.mark.parametrize("prompts", [[[5]], [[5], [7, 9, 4]]])
def test_what_leaves_position_0_alone_needs_another_one(model, prompts):
    """A mean is of positions behind the first, and a key is hidden from others that see one: of one token nothing."""
    means = measure_means(model, [Prompt.ids([3, 9, 4, 6])], hooks=(Z,))
    for edit in (Ablate(Head(1, 2), "mean", means), Ablate(AttentionKey(1, 2, 0))):
        with pytest.raises(InputError, match="leaves position 0 alone, of 1 position there"):
            observe(model, [Prompt.ids(one) for one in prompts], interventions=[edit])
    observe(model, Prompt.ids([5]), interventions=[Ablate(Head(1, 2))])


def test_rows_of_values_for_one_position_do_not_overwrite_each_other(model):
    """-2 of a prompt of five tokens is 3: one of the two directions would be lost."""
    two = torch.stack([torch.ones(model.sizes.d_model), torch.full((model.sizes.d_model,), 2.0)])
    steer = Steer(0, two, 1.0, RESID_POST, (3, -2))
    with pytest.raises(InputError, match="positions 3,-2, one of which is twice in a prompt of 5"):
        observe(model, Prompt.ids([5, 9, 7, 4, 3]), interventions=[steer])
    observe(model, Prompt.ids([5, 9, 7, 4, 3, 8]), interventions=[steer])
    with pytest.raises(InputError, match="named twice"):
        observe(model, Prompt.ids([5, 9]), interventions=[Add(Neurons(0, (3, 3)), 1.0)])


def test_what_a_set_state_makes_void_is_found_across_the_layers_seam(model):
    """The state in front of layer 1 is the one behind layer 0, by whichever name it is written."""
    prompt = Prompt.ids([5, 9, 7, 4, 3])
    source = record(model, Prompt.ids([5, 9, 8, 4, 3]), [RESID_POST, V])
    state, void = Ablate(Residual(1, 3)), [
        Patch(RESID_POST, 0, source, (3,)), Steer(0, torch.ones(model.sizes.d_model), 1.0, RESID_POST, (3,)),
        Ablate(MLP(0), positions=(3,)),
    ]  # fmt: skip
    for edit in void:
        for pair in ([edit, state], [state, edit]):
            with pytest.raises(InputError, match="do not contradict"):
                observe(model, prompt, interventions=pair)
    whole = Ablate(Residual(1))
    for edit in (*void, Ablate(Head(0, 1)), Patch(V, 0, source, None, (0,))):
        with pytest.raises(InputError, match="do not contradict"):
            observe(model, prompt, interventions=[edit, whole])
    kept = [Steer(0, torch.ones(model.sizes.d_model), 1.0, RESID_POST), Ablate(Head(0, 1)), Ablate(MLP(1))]
    for edit in kept:  # at other positions, too, or behind it
        observe(model, prompt, interventions=[edit, state])
    observe(model, prompt, interventions=[void[0], Scale(Residual(1, 3), 2.0)])
    with pytest.raises(InputError, match="do not contradict"):
        observe(model, prompt, interventions=[Patch(V, 0, source, None, (0,)), Ablate(Attention(0))])
