"""One pass for every need: what it keeps is right, and watching changes nothing."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

from tests.tiny_models import KINDS, tiny_hf, tiny_model
from workbench import LOGITS, PATTERN, RESID_MID, RESID_POST, RESID_PRE, Ablate, Head, Need, Prompt, keep, observe, wrap
from workbench.errors import Cancelled, InputError, RefusedError
from workbench.models.hooks import LN_FINAL_SCALE, ROT_Q
from workbench.observation import predict_bytes, run
from workbench.observation.watch import Call, Steps, Watch

IDS = [[5, 9, 17, 33, 2, 9, 17], [7, 7, 80, 41, 5, 60, 12]]
STATES = Need((RESID_POST,), keep, dims="pos d_model")
FIRST = Need((RESID_PRE,), keep, dims="pos d_model", layers=(0,))


def mean_pattern(pattern, site):
    """Mean attention each key receives, a reduction with a positional output."""
    return (pattern * site.mask[:, None, :, None]).sum(2)


def total_and_pattern(pre, post, site):
    """Needs two activations of a layer at once."""
    return (post - pre).abs().sum(-1)


def surprisal(logits, site):
    """A need on the pass's own output."""
    log_probs = logits[:, :-1].float().log_softmax(-1)
    return -log_probs.gather(-1, site.tokens[:, 1:, None])[..., 0]


@pytest.fixture
def unembedded(monkeypatch):
    """How many positions of a model the unembedding reads in each pass, where no logits are few enough for all."""
    monkeypatch.setattr(run, "_WHOLE_LOGITS", 0)

    def of(model):
        counts = []
        model.readout.unembed.register_forward_hook(lambda module, inputs, output: counts.append(output.shape[-2]))
        return counts

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_where_all_logits_are_too_many_those_of_asked_positions_are_computed(kind, unembedded):
    """3e-6 of the largest: a product of other rows is added up in another order."""
    model = tiny_model(kind, n_layers=3)
    prompts = [Prompt.ids(IDS[0]), Prompt.ids(IDS[1][:4])]
    whole = observe(model, prompts, positions="all").logits
    counts = unembedded(model)
    for positions, expected, n in (("last", [[6], [3]], 2), ([2, -1], [[2, 6], [2, 3]], 3), ("none", [[], []], 1)):
        found = observe(model, prompts, [STATES], positions=positions, interventions=[Ablate(Head(1, 2))])
        plain = observe(model, prompts, positions="all", interventions=[Ablate(Head(1, 2))])
        assert counts == [n, 7] and found.positions == tuple(map(tuple, expected))
        counts.clear()
        for row, at in enumerate(expected):
            gap = (found.logits[row] - plain.logits[row][at]).abs()
            assert gap.shape == (len(at), whole[0].shape[-1]) and not gap.gt(3e-6 * whole[0].abs().max()).any()
    assert torch.equal(observe(model, prompts, positions="all").logits[0], whole[0]) and counts == [7]


def test_a_need_on_logits_and_a_pass_from_within_get_all_of_them(unembedded):
    """A pass from another's progress callback is one of its own: what the outer one leaves out is there."""
    model, prompt, need = tiny_model("llama"), Prompt.ids(IDS[0]), Need((LOGITS,), surprisal, dims="pos")
    whole = observe(model, prompt, [need], positions="all")
    counts, inner = unembedded(model), []
    assert torch.equal(observe(model, prompt, [need], positions="last")[need], whole[need]) and counts == [7]

    def look(share):
        inner.append(observe(model, prompt, positions="all").logits[0])

    observe(model, prompt, positions="last", progress=look)
    assert counts == [7, 7, 7, 1] and all(torch.equal(found, whole.logits[0]) for found in inner)


def boom(pattern, site):
    raise ValueError("a bug in a reducer")


RECEIVED = Need((PATTERN,), mean_pattern, dims="head key")
CHANGE = Need((RESID_PRE, RESID_POST), total_and_pattern, dims="pos")


def bare(model, ids):
    with model.lock, torch.no_grad():
        return model.adapter.forward(torch.tensor(ids))


def hook_count(model):
    """Hooks left anywhere in the model."""
    module = getattr(model.adapter, "bridge", None) or model.adapter.module
    return sum(len(m._forward_hooks) for m in module.modules() if type(m).__name__ == "HookPoint")


def test_watching_leaves_logits_bit_equal_and_no_hooks(tiny):
    before, hooks = bare(tiny, IDS), hook_count(tiny)
    observed = observe(tiny, [Prompt.ids(i) for i in IDS], [STATES, RECEIVED, CHANGE, FIRST], positions="all")
    assert torch.equal(torch.stack(observed.logits), before)
    assert hook_count(tiny) == hooks
    assert torch.equal(bare(tiny, IDS), before)


def test_states_are_the_hugging_face_hidden_states():
    hf, model = tiny_hf("llama"), tiny_model("llama")  # the same seed twice: wrapping changes a model in place
    with torch.no_grad():
        states = hf(torch.tensor(IDS), output_hidden_states=True).hidden_states
    observed = observe(model, [Prompt.ids(i) for i in IDS], [STATES, FIRST])
    assert torch.equal(observed[FIRST][0], states[0])
    # sdpa against eager: another order of summation, 1e-6 of states of size 10
    torch.testing.assert_close(observed[STATES][0], states[1], atol=1e-5, rtol=1e-5)


def test_equal_needs_are_computed_once_and_alone_equals_union(tiny):
    prompts = [Prompt.ids(i) for i in IDS]
    union = observe(tiny, prompts, [RECEIVED, Need((PATTERN,), mean_pattern, dims="head key"), CHANGE, STATES])
    assert len(union.results) == 3
    for need in (RECEIVED, CHANGE, STATES):
        assert torch.equal(observe(tiny, prompts, [need])[need], union[need])


def test_padding_enters_no_number(tiny):
    short = Prompt.ids(IDS[0][:4])
    alone = observe(tiny, short, [STATES, RECEIVED, CHANGE], positions="all")
    beside = observe(tiny, [short, Prompt.ids(IDS[1])], [STATES, RECEIVED, CHANGE], positions="all")
    # another batch size re-associates sums in float32
    torch.testing.assert_close(beside.logits[0], alone.logits[0], atol=1e-4, rtol=1e-4)
    for need, axis in ((STATES, 1), (CHANGE, 1), (RECEIVED, 2)):
        got = beside[need][:, 0].movedim(axis, 0)
        torch.testing.assert_close(got[:4], alone[need][:, 0].movedim(axis, 0), atol=1e-4, rtol=1e-4)
        assert got[4:].isnan().all()
    taken = beside.prompt(0)
    assert taken.tokens == alone.tokens and len(taken.logits) == len(taken.positions) == 1
    for need in (STATES, CHANGE, RECEIVED):
        torch.testing.assert_close(taken[need], alone[need], atol=1e-4, rtol=1e-4)  # the same shape, and no NaN


def test_long_lists_are_cut_into_batches(tiny):
    prompts = [Prompt.ids(IDS[i % 2][: 3 + i % 4]) for i in range(9)]
    whole = observe(tiny, prompts, [STATES, CHANGE], positions="last")
    cut = observe(tiny, prompts, [STATES, CHANGE], positions="last", batch_tokens=14)
    for need in (STATES, CHANGE):
        torch.testing.assert_close(cut[need], whole[need], atol=1e-4, rtol=1e-4, equal_nan=True)
    torch.testing.assert_close(torch.cat(cut.logits), torch.cat(whole.logits), atol=1e-4, rtol=1e-4)


def test_restart_from_a_layer_equals_the_full_run(tiny):
    prompts = [Prompt.ids(i) for i in IDS]
    full = observe(tiny, prompts, [STATES, RECEIVED, Need((RESID_PRE,), keep, dims="pos d_model")], positions="all")
    state = full[Need((RESID_PRE,), keep, dims="pos d_model")][1]
    again = observe(tiny, prompts, [STATES, RECEIVED], positions="all", start=(1, state))
    assert torch.equal(torch.stack(again.logits), torch.stack(full.logits))
    assert torch.equal(again[STATES][0], full[STATES][1])
    stopped = observe(tiny, prompts, [RECEIVED], start=(1, state), stop=2)
    assert torch.equal(stopped[RECEIVED][0], full[RECEIVED][1]) and stopped.logits[0].numel() == 0
    assert torch.equal(bare(tiny, IDS), torch.stack(full.logits))


def test_a_restart_runs_none_of_the_blocks_before_it():
    model = tiny_model("llama", n_layers=3)
    ran = []
    handles = [
        block.original_component.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(model.adapter.bridge.blocks)
    ]
    observe(model, Prompt.ids(IDS[0]), start=(2, torch.zeros(1, 7, 32)))
    for handle in handles:
        handle.remove()
    assert ran == [2]


def test_logits_needs_and_positions(tiny):
    need = Need((LOGITS,), surprisal, dims="pos")
    observed = observe(tiny, Prompt.ids(IDS[0]), [need], positions=[0, -1])
    log_probs = bare(tiny, IDS[:1])[0].log_softmax(-1)
    expected = -torch.stack([log_probs[i, IDS[0][i + 1]] for i in range(6)])
    torch.testing.assert_close(observed[need][0], expected)
    assert observed.positions == ((0, 6),)
    torch.testing.assert_close(observed.log_probs[0], log_probs[[0, 6]])


def test_labelled_arrays(tiny):
    array = observe(tiny, Prompt.ids(IDS[0]), [RECEIVED]).array(RECEIVED)
    assert array.dims == ("layer", "prompt", "head", "key") and array.sizes["head"] == 4


def test_hooks_are_removed_after_an_error(tiny):
    before, hooks = bare(tiny, IDS), hook_count(tiny)
    with pytest.raises(ValueError, match="a bug in a reducer"):
        observe(tiny, Prompt.ids(IDS[0]), [Need((PATTERN,), boom), STATES], interventions=[Ablate(Head(0, 1))])
    assert hook_count(tiny) == hooks and torch.equal(bare(tiny, IDS), before)


def test_cancelling_between_layers(tiny):
    before, seen = bare(tiny, IDS), []

    def stop_early(share):
        seen.append(share)
        raise Cancelled()

    with pytest.raises(Cancelled):
        observe(tiny, Prompt.ids(IDS[0]), [STATES], progress=stop_early)
    assert len(seen) == 1 and torch.equal(bare(tiny, IDS), before)


def test_progress_counts_to_one(tiny):
    seen = []
    observe(tiny, [Prompt.ids(i) for i in IDS], [STATES], progress=seen.append, batch_tokens=7)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)


def test_two_threads_get_their_own_numbers(tiny):
    """A bridge alone is not thread-safe: without the lock this fails."""
    expected = [observe(tiny, Prompt.ids(i), [STATES], positions="all") for i in IDS]
    wrong = []

    def work(i):
        for _ in range(8):
            got = observe(tiny, Prompt.ids(IDS[i]), [STATES], positions="all")
            if not torch.equal(got.logits[0], expected[i].logits[0]) or got.logits[0].requires_grad:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_ablation_acts_and_leaves_no_trace(tiny):
    before = bare(tiny, IDS[:1])
    ablated = observe(tiny, Prompt.ids(IDS[0]), positions="all", interventions=[Ablate(Head(1, 2))])
    assert not torch.allclose(ablated.logits[0], before[0], atol=1e-4)
    assert str(ablated.interventions[0].unit) == "L1H2"
    assert torch.equal(bare(tiny, IDS[:1]), before)


def test_missing_hooks_are_named_with_the_analysis():
    with pytest.raises(InputError, match="keep, which needs rot_q"):
        observe(tiny_model("gpt2"), Prompt.ids(IDS[0]), [Need((ROT_Q,), keep, dims="pos head d_head")])
    with pytest.raises(InputError, match="resid_pre"):  # and the names there are
        observe(tiny_model("neox"), Prompt.ids(IDS[0]), [Need((RESID_MID,), keep, dims="pos d_model")])


def test_a_hook_that_stays_silent_is_refused():
    """GPT-NeoX's bridge lists hook_rot_q and never fires it (TransformerLens 4.3)."""
    with pytest.raises(RefusedError, match="rot_q"):
        observe(tiny_model("neox"), Prompt.ids(IDS[0]), [Need((ROT_Q,), keep, dims="pos head d_head")])


def test_wrong_use_is_said():
    model = tiny_model("llama")
    with pytest.raises(InputError, match="top of a module"):
        Need((PATTERN,), lambda pattern, site: pattern)
    with pytest.raises(InputError, match="Declare the axes"):
        observe(model, Prompt.ids(IDS[0]), [Need((PATTERN,), mean_pattern, dims="head")])
    with pytest.raises(InputError, match="layers 0 to 1"):
        observe(model, Prompt.ids(IDS[0]), [Need((PATTERN,), mean_pattern, dims="head key", layers=(5,))])
    with pytest.raises(InputError, match="position"):
        observe(model, Prompt.ids(IDS[0]), positions=[7])
    with pytest.raises(InputError, match="at least one"):
        observe(model, [])
    with pytest.raises(InputError, match="not observed"):
        observe(model, Prompt.ids(IDS[0]), [STATES])[RECEIVED]
    with pytest.raises(InputError, match="Hugging Face"):
        wrap(torch.nn.Linear(2, 2), None)


def test_memory_is_predicted_from_declared_dims():
    sizes = tiny_model("llama").sizes
    assert predict_bytes(sizes, [STATES], n_prompts=3, length=10) == 4 * 3 * 2 * 10 * 32
    some = Need((RESID_POST,), keep, dims="pos d_model", params={"positions": (1, 2)}, layers=(0,))
    assert predict_bytes(sizes, [some], 1, 10) == 4 * 2 * 32


# --- positions, padding and passes that do not run through the whole model --------------------------------------------

LONG_IDS = [11, 4, 29, 63, 8, 70, 33, 2, 50]
SHORT_IDS = [90, 13, 42, 6]


def at(*positions):
    """A need of the states at some positions."""
    return Need((RESID_POST,), keep, dims="pos d_model", params={"positions": positions})


def scaled_top(logits, scale, site):
    """A need on the pass's output and on what the final norm divided by."""
    return logits.amax(-1) * scale[..., 0]


def one_more_each_layer(pattern, site):
    """A list of another length in every layer."""
    return pattern.new_zeros(len(pattern), site.layer + 1)


def one_short(pattern, site):
    """Declares an axis of positions that is not one."""
    return pattern.sum((1, 3))[:, 1:]


@pytest.mark.parametrize("batch_tokens", [4096, 5])
def test_positions_that_a_prompt_has_not_are_missing(tiny, batch_tokens):
    """Whatever is asked, in whatever order: in one batch with the longer prompt, and in one of its own."""
    prompts, whole = [SHORT_IDS, LONG_IDS], observe(tiny, [SHORT_IDS, LONG_IDS], [STATES], batch_tokens=batch_tokens)
    asked = (7, 3, 5, 0, -1, -9)
    seen = observe(tiny, prompts, [at(*asked)], batch_tokens=batch_tokens)[at(*asked)]
    counted = {0: (None, 3, None, 0, 3, None), 1: (7, 3, 5, 0, 8, 0)}
    for row, places in counted.items():
        for column, place in enumerate(places):
            got = seen[:, row, column]
            if place is None:
                assert got.isnan().all(), (row, column)
            else:
                assert torch.equal(got, whole[STATES][:, row, place]), (row, column)


def test_all_positions_in_reverse_are_blanked_where_the_padding_is(tiny):
    """As many positions as the batch is long, in another order: the mask must be asked at the same places."""
    backwards = at(*reversed(range(9)))
    both = observe(tiny, [SHORT_IDS, LONG_IDS], [backwards, STATES])
    assert torch.equal(both[backwards][:, 1], both[STATES][:, 1].flip(1))
    assert both[backwards][:, 0, :5].isnan().all() and not both[backwards][:, 0, 5:].isnan().any()


def test_a_position_that_no_prompt_has_is_said(tiny):
    with pytest.raises(InputError, match="position 9; expected positions from 0 to 8"):
        observe(tiny, [SHORT_IDS, LONG_IDS], [at(2, 9)])
    with pytest.raises(InputError, match="position -5; expected positions from 0 to 3"):
        observe(tiny, SHORT_IDS, positions=[-5])


def test_an_axis_of_positions_is_as_long_as_the_batch():
    need = Need((PATTERN,), one_short, dims="query")
    with pytest.raises(InputError, match="one_short returning 8 along query"):
        observe(tiny_model("llama"), [SHORT_IDS, LONG_IDS], [need])


def test_one_prompt_of_several_keeps_its_own_rows_only(tiny):
    fields = {"label": torch.tensor([[1, 2], [3, 4]])}
    both = observe(tiny, [LONG_IDS, SHORT_IDS], [at(6, 2), STATES], fields=fields)
    second = both.prompt(1)
    assert second.fields["label"].tolist() == [[3, 4]] and second[STATES].shape[2] == 4
    assert second[at(6, 2)].shape[2] == 2  # neither is lost
    assert torch.equal(second[at(6, 2)][:, 0, 1], second[STATES][:, 0, 2]) and second[at(6, 2)][:, 0, 0].isnan().all()


def test_one_prompt_of_several_keeps_all_positions_that_were_asked_for(tiny):
    """More of them than it has tokens: the axis is as long as what was asked, not as the prompt."""
    asked = (6, 0, -1, 1, -7)
    need = Need((RESID_POST,), keep, dims="pos d_model", params={"positions": asked})
    short = observe(tiny, [Prompt.ids(IDS[0][:2]), Prompt.ids(IDS[1])], [need]).prompt(0)[need][:, 0]
    plain = observe(tiny, Prompt.ids(IDS[0][:2]), [STATES])[STATES][:, 0]
    assert short.shape[1] == len(asked) and bool(short[:, [0, 4]].isnan().all())
    torch.testing.assert_close(short[:, [1, 2, 3]], plain[:, [0, 1, 1]], atol=1e-5, rtol=1e-5)


def test_arrays_of_a_pass_that_starts_or_stops_inside_the_model():
    model = tiny_model("qwen2", n_layers=4)
    before = Need((RESID_PRE,), keep, dims="pos d_model")
    full = observe(model, LONG_IDS, [STATES, before])
    part = observe(model, LONG_IDS, [STATES], start=(1, full[before][1]), stop=3)
    array = part.array(STATES)
    assert array["layer"].values.tolist() == [1, 2] and part.ran == range(1, 3)
    assert torch.equal(torch.tensor(array.sel(layer=2).values), full[STATES][2])
    some = Need((RESID_POST,), keep, dims="pos d_model", layers=(2, 0))
    assert observe(model, LONG_IDS, [some], stop=2, positions="none").array(some)["layer"].values.tolist() == [0]
    assert full.array(STATES)["layer"].values.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stop": 0}, "stop=0; expected 1 to 2"),
        ({"stop": 3}, "stop=3; expected 1 to 2"),
        ({"stop": -1}, "stop=-1"),
        ({"start": (2, torch.zeros(1, 9, 32))}, "start=2; expected layers 0 to 1"),
        ({"start": (1, torch.zeros(1, 9, 32)), "stop": 1}, "stop=1; expected 2 to 2"),
        ({"start": (1, torch.zeros(1, 8, 32))}, r"a state of shape \(1, 8, 32\)"),
        ({"needs": [Need((LOGITS,), surprisal, dims="pos")], "stop": 2}, "a pass that runs to its end"),
        ({"needs": [Need((LN_FINAL_SCALE,), keep, dims="pos one")], "stop": 2}, "a pass that runs to its end"),
        ({"needs": [FIRST], "start": (1, torch.zeros(1, 9, 32))}, "of layer 0; expected one of layers 1 to 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_passes_that_cannot_be_are_said(options, said):
    with pytest.raises(InputError, match=said):
        observe(tiny_model("llama"), LONG_IDS, **options)


def test_a_need_names_a_layer_or_all():
    with pytest.raises(InputError, match="a need of no layers"):
        Need((RESID_POST,), keep, dims="pos d_model", layers=())
    with pytest.raises(InputError, match="each layer once"):
        Need((RESID_POST,), keep, dims="pos d_model", layers=(2, 0, 2))


def test_a_need_on_logits_and_on_the_final_norms_scale(tiny):
    need, scale = Need((LOGITS, LN_FINAL_SCALE), scaled_top, dims="pos"), Need((LN_FINAL_SCALE,), keep, dims="pos one")
    seen = observe(tiny, [SHORT_IDS, LONG_IDS], [need, scale], positions="all")
    for row, logits in enumerate(seen.logits):
        expected = logits.amax(-1) * seen[scale][row, : len(logits), 0]
        assert torch.equal(seen[need][row, : len(logits)], expected)
    assert seen[need][0, 4:].isnan().all()


def test_a_ragged_need_has_no_array():
    need = Need((PATTERN,), one_more_each_layer, dims="edge")
    with pytest.raises(InputError, match="differs from layer to layer"):
        observe(tiny_model("llama"), LONG_IDS, [need]).array(need)


def test_reducers_follow_the_device_of_their_layer():
    """With meta tensors, for want of a second device: what a site holds lies where the activation does."""
    model = tiny_model("llama")
    ids, mask, lengths = torch.tensor([[4, 5, 6]]), torch.ones(1, 3, dtype=torch.bool), torch.tensor([3])
    call = Call(model, (), (), None, None, None, Steps(1, 2))
    watch = Watch(call, ids, mask, lengths, {"lag": torch.tensor([2])})
    site = watch._site(1, torch.device("meta"))
    assert {t.device.type for t in (site.tokens, site.mask, site.lengths, site.fields["lag"])} == {"meta"}
    assert watch._site(0, torch.device("cpu")).tokens is ids


@pytest.mark.parametrize(
    "options",
    [
        {"positions": 3}, {"positions": None}, {"positions": [1.5]}, {"positions": ["a"]}, {"positions": [True]},
        {"stop": "1"}, {"stop": 1.0}, {"start": 1}, {"start": (1, None)}, {"start": (1, [0.0])}, {"start": ("1", None)},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_of_another_kind_are_refused_in_a_sentence(options):
    with pytest.raises(InputError):
        observe(tiny_model("llama"), Prompt.ids([1, 2, 3]), **options)


def test_positions_may_be_numbers_of_any_kind():
    model, ids = tiny_model("llama"), Prompt.ids([1, 2, 3])
    for given in (range(1, 3), np.array([1, 2]), torch.tensor([1, 2]), (1, -1)):
        assert observe(model, ids, positions=given).positions == ((1, 2),)


def test_states_are_not_read_out_with_other_weights():
    """Whoever trains on, and reads the states of before with the unembedding of now, is told so."""
    held = tiny_hf("llama")
    model = wrap(held, None, name="trained-on")
    seen = observe(model, IDS, [STATES])
    before, one = seen[STATES].clone(), seen.prompt(1)
    assert one.readout.logits(one[STATES][-1, 0]).shape == (7, 96)
    with torch.no_grad():
        held.model.layers[1].mlp.down_proj.weight += 0.5
    for again in (seen, one, seen.prompt(0)):
        for ask in (lambda: again.readout, lambda: again.weights(0), lambda: again.expert_weights(0, 0)):  # noqa: B023
            with pytest.raises(RefusedError, match="trained-on, whose weights have been changed since"):
                ask()
    assert torch.equal(seen[STATES], before) and observe(model, IDS, [STATES]).readout is not None


@pytest.mark.parametrize("take", [copy.deepcopy, pickle.dumps])
def test_neither_a_model_nor_what_holds_it_is_copied(take):
    model = tiny_model("gpt2")
    with pytest.raises(RefusedError, match="Load it again there"):
        take(model)
    with pytest.raises(RefusedError, match="observation of tiny-gpt2 to be pickled or copied"):
        take(observe(model, IDS))
    other = copy.copy(model)
    assert other is not model and other.adapter is model.adapter and other.lock is model.lock
