"""The logit lens, held against planted cases, laws, an independent route and the default model."""

import numpy as np
import pytest
import torch

from probes.lens.logit_lens import VIEW, LogitLens, _top, around, chosen_positions, lens, top_tokens_figure
from tests.tiny_models import tiny_hf, tiny_model
from workbench import Prompt, load, observe
from workbench.errors import InputError
from workbench.loading.toys.adapter import ToyAdapter
from workbench.loading.toys.circuits import induction_circuit

IDS = Prompt.ids([5, 9, 17, 33, 2, 9, 17])


# planted


def test_a_circuit_shows_its_answer_at_the_depth_that_writes_it():
    """In the hand-made induction circuit only block 1 writes the prediction: depths 0 and 1 know nothing."""
    readout = ToyAdapter(induction_circuit()).readout()
    states = torch.zeros(3, 1, 256)
    states[2, 0, 192 + 7] = 1.0  # the prediction part says token 7
    found = lens(readout, states, torch.tensor([7]), top_k=3)
    np.testing.assert_allclose(found["entropy"][:2, 0], np.log(64), rtol=1e-6)  # uniform over 64 tokens
    assert found["top_token"][2, 0, 0] == 7 and found["target_rank"][2, 0] == 1
    assert found["agrees"].tolist()[2] == [1]
    # one logit of 10 against 63 of 0
    np.testing.assert_allclose(found["target_prob"][2, 0], np.exp(10) / (np.exp(10) + 63), rtol=1e-6)


def test_two_level_top_k_is_top_k():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 64 * 40)
    values, tokens = _top(logits, 7)
    expected = logits.topk(7)
    assert torch.equal(values, expected.values) and torch.equal(tokens, expected.indices)
    clustered = torch.zeros(1, 1, 64 * 40)  # all the best in one block
    clustered[0, 0, 64:74] = torch.arange(10.0)
    assert _top(clustered, 7)[1].flatten().tolist() == [73, 72, 71, 70, 69, 68, 67]


# laws


def test_the_last_depth_is_the_models_own_distribution(tiny):
    result = LogitLens(positions="all", top_k=5).run(tiny, IDS)
    own = observe(tiny, IDS, positions="all").log_probs[0]
    last = result.isel(depth=-1)
    # float32 softmax over 96 entries, computed for another number of rows
    np.testing.assert_allclose(last["top_prob"].values, own.exp().topk(5).values, atol=1e-5)
    targets = torch.tensor(result["target_token"].values)
    np.testing.assert_allclose(last["target_prob"], own.gather(1, targets[:, None])[:, 0].exp(), atol=1e-5)
    np.testing.assert_allclose(last["kl_to_final"], 0, atol=1e-6)
    np.testing.assert_allclose(last["entropy"], torch.special.entr(own.exp()).sum(-1), atol=1e-5)
    assert last["agrees"].values.all()


def test_ranges_and_consistency(tiny):
    result = LogitLens(positions="all", top_k=96).run(tiny, IDS)
    assert (result["entropy"] <= np.log(96) + 1e-5).all() and (result["kl_to_final"] >= 0).all()
    np.testing.assert_allclose(result["top_prob"].sum("rank"), 1, atol=1e-5)
    np.testing.assert_allclose(-np.log(result["target_prob"]), result["target_surprisal"], atol=1e-4)
    at_rank = result["top_token"].values == result["target_token"].values[None, :, None]
    assert (at_rank.argmax(-1) + 1 == result["target_rank"].values).all()  # no ties among random logits
    followed = result["target_token"].values
    assert followed[:-1].tolist() == [9, 17, 33, 2, 9, 17] and followed[-1] == result["top_token"][-1, -1, 0]


# an independent route


def test_against_a_plain_loop_over_hugging_face_states():
    hf = tiny_hf("llama", n_layers=3)
    with torch.no_grad():
        states = hf(torch.tensor([IDS.token_ids]), output_hidden_states=True).hidden_states
        rows = [hf.lm_head(hf.model.norm(s)) for s in states[:-1]] + [hf.lm_head(states[-1])]
    model = tiny_model("llama", n_layers=3)
    result = LogitLens(positions="all", top_k=4, target="#17", against="#3").run(model, IDS)
    final = rows[-1][0].log_softmax(-1)
    for depth, logits in enumerate(rows):
        log_probs = logits[0].log_softmax(-1)
        for pos in range(7):
            cell, lp = result.isel(depth=depth, pos=pos), log_probs[pos]
            assert cell["top_token"].values.tolist() == lp.topk(4).indices.tolist()
            kl = float((lp.exp() * (lp - final[pos])).sum())
            assert float(cell["kl_to_final"]) == pytest.approx(kl, abs=1e-5)
            assert float(cell["target_prob"]) == pytest.approx(float(lp[17].exp()), abs=1e-6)
            assert int(cell["target_rank"]) == 1 + int((lp > lp[17]).sum())
            assert float(cell["logit_difference"]) == pytest.approx(float(lp[17] - lp[3]), abs=1e-4)


def test_raw_variant_skips_the_norm():
    model = tiny_model("llama")
    raw = LogitLens(positions="0", normalise=False).run(model, IDS)
    state = observe(model, IDS, LogitLens(positions="0").needs(model, range(7)))
    embedding = next(iter(state.results.values()))[0, 0, 0]
    expected = (embedding @ model.readout.W_U.T).softmax(-1)
    np.testing.assert_allclose(raw["top_prob"][0, 0], expected.topk(10).values.detach(), atol=1e-6)
    assert (raw["kl_to_final"].isel(depth=-1) > 1e-3).all()  # to the model's own distribution, not to itself
    said = [LogitLens(normalise=normed).run(model, IDS).attrs["summary"] for normed in (False, True)]
    assert ["the last depth is no output" in one for one in said] == [True, False]  # what the model says is another


def test_mid_states_lie_between(tiny):
    if tiny.sizes.parallel:
        with pytest.raises(InputError, match="include_mid=False"):
            LogitLens(include_mid=True).run(tiny, IDS)
        return
    full, mid = LogitLens().run(tiny, IDS), LogitLens(include_mid=True).run(tiny, IDS)
    assert mid["depth"].values.tolist() == [0, 0.5, 1, 1.5, 2]
    np.testing.assert_allclose(mid["entropy"].sel(depth=[0, 1, 2]), full["entropy"], atol=1e-5)
    assert abs(mid["entropy"].sel(depth=0.5) - full["entropy"].sel(depth=0)).max() > 1e-3


def test_never_more_than_a_few_rows_of_logits(monkeypatch):
    model, sizes = tiny_model("llama"), []
    original = type(model.readout).logits

    def watched(self, resid, **options):
        sizes.append(resid.shape[:-1].numel())
        return original(self, resid, **options)

    monkeypatch.setattr(type(model.readout), "logits", watched)
    LogitLens(positions="all").run(model, Prompt.ids(list(range(3, 93)) + [4] * 30))
    assert max(sizes) <= 128 and sum(sizes) >= 3 * 120


# bad input


@pytest.mark.parametrize(
    ("positions", "expected"),
    [("auto", tuple(range(7))), ("last", (6,)), ("0,-1,3", (0, 3, 6)), ("all", tuple(range(7)))],
)
def test_positions(positions, expected):
    assert chosen_positions(positions, 7) == expected


def test_auto_takes_the_last_of_a_long_prompt():
    assert chosen_positions("auto", 33) == tuple(range(17, 33))


@pytest.mark.parametrize("positions", ["7", "some", "1,x", "-8"])
def test_bad_positions(positions):
    with pytest.raises(InputError, match="position"):
        LogitLens(positions=positions).run(tiny_model("llama"), IDS)


def test_a_target_must_be_one_token(default_model):
    with pytest.raises(InputError, match="one token"):
        LogitLens(target="Copenhagen harbour").run(default_model, "The capital of France is")


# negative control and golden numbers


def test_random_weights_know_no_answer():
    """With random weights the last token's target is at chance: the mean rank over many targets is near the middle."""
    ranks = [
        float(LogitLens(positions="all").run(tiny_model("llama", seed=s), IDS)["target_rank"][-1, :-1].mean())
        for s in range(6)
    ]
    # 36 ranks, nearly uniform on 1..96 (sd 27.7): standard error 4.6; 4 sigma
    assert abs(np.mean(ranks) - 48.5) < 18.5


def test_the_capital_of_france(default_model):
    """Golden (2026-11-21, torch 2.13, transformers 5.23, bundled weights): prediction, depth and probability."""
    result = LogitLens().run(default_model, "The capital of France is")
    last = result.isel(pos=-1)
    assert str(last["top_text"].values[-1, 0]) == " Paris"
    assert float(last["top_prob"][-1, 0]) == pytest.approx(0.7491, abs=2e-3)
    assert [str(t) for t in last["top_text"].values[28:, 0]] == [" Paris"] * 3
    assert str(last["top_text"].values[20, 0]) != " Paris"
    assert "' Paris'" in result.attrs["summary"] and "depth 28" in result.attrs["summary"]


def test_figures_draw(default_model):
    result = LogitLens().run(default_model, "The capital of France is")
    for figure in VIEW.figures:
        assert len(figure(result).to_json()) < 1_000_000
    listed = top_tokens_figure(result, {"pos": 5, "depth": 30})
    assert "Paris" in listed.to_json() and top_tokens_figure(result, {}) is None


def test_of_a_cell_that_was_not_read_out_no_other_one_is_shown():
    """The nearest would be position 9 or 2, and depth 1: tokens of a place that nobody selected."""
    model = load("toy-induction")
    result = LogitLens(positions="2,9").run(model, [5, 9, 13, 5, 9, 13, 7, 3, 1, 2])
    assert "Read out at 2 of 10 positions, 2 to 9." in result.attrs["summary"]
    for selection in ({"pos": 8}, {"pos": 3, "depth": 1}, {"pos": 9, "depth": 0.5}):
        assert top_tokens_figure(result, selection) is None
    assert "position 9" in top_tokens_figure(result, {"pos": 9, "depth": 1}).layout.title.text
    assert "Read out" not in LogitLens().run(model, [5, 9, 13]).attrs["summary"]


@pytest.mark.parametrize("n_tokens", [8, 32, 33, 47, 48, 100])
def test_a_window_of_the_lens_holds_the_token_that_is_asked_for(n_tokens):
    """Side by side from the first token on: the windows of two prompts are of the same positions, but for the last."""
    for pos in range(n_tokens):
        other = around(LogitLens(), pos, n_tokens)
        positions = chosen_positions((other or LogitLens()).positions, n_tokens)
        assert pos in positions and len(positions) == min(n_tokens, 32 if n_tokens <= 32 else 16)
        if other is not None:
            assert positions[0] in (pos // 16 * 16, n_tokens - 16)
    for bad in (-1, n_tokens):
        assert around(LogitLens(), bad, n_tokens) is None
    assert around(LogitLens(positions="last"), 0, n_tokens) is None  # chosen by hand
