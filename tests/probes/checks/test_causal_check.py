"""Causal check: calibrated where nothing is claimed, finds what was planted, and says what it compared with."""

import numpy as np
import pytest
import torch
import xarray as xr

from probes.attention.induction.induction_heads import InductionHeads
from probes.checks.causal_check import CausalCheck, repeated_tokens
from probes.checks.figures import controls_figure, norms_figure
from probes.checks.matched_controls import matched_controls
from probes.checks.removal import _direction_cells, check, checking
from tests.tiny_models import tiny_model
from workbench.errors import Cancelled, InputError
from workbench.intervene import MLP, Ablate, Attention, AttentionEdge, AttentionKey, Head, Neurons, Residual
from workbench.loading.pretrained import load
from workbench.models.hooks import ATTN_RESULT, MLP_OUT, RESID_PRE
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import observe
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run

PROMPT = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])


def logit(target):
    """The metric that is easiest to compute by hand."""
    return {"kind": "logit difference", "target": target}


@pytest.mark.parametrize(("ids", "where"), [([7], "the only position"), ([7, 3], "every position but 0")])
def test_where_directions_are_added_is_said(ids, where):
    result = check(tiny_model("gpt2"), Prompt.ids(ids), [Head(1, 1)], logit("#31"))
    assert f"added at {where}, stand in" in result.attrs["summary"] and result["control_effect"].values.all()


@pytest.mark.parametrize("n_tokens", [20, 6])
def test_a_state_at_position_0_has_no_like_and_its_effect_is_told(n_tokens):
    """Its norm is left out: there is no test, the others are states behind it, and no direction is as loud."""
    prompt = Prompt.ids(list(range(3, 3 + n_tokens)))
    result = check(tiny_model("llama", n_layers=4), prompt, [Residual(2, 0)], logit("#31"))
    assert np.isnan(result["relation_p"]) and result.attrs["controls"] == "none" and np.isfinite(result["effect"])
    assert "other states of the residual stream behind position 0 within a factor" in result.attrs["summary"]


def test_the_check_is_made_of_the_parts_that_are_calibrated():
    """Effects of the unit and of its matched controls, each by a pass of its own."""
    model = tiny_model("llama", n_layers=4)
    prompt = Prompt.ids(list(range(3, 23)))
    plain = observe(model, prompt).logits[0][0, 31]
    effect = lambda unit: float(observe(model, prompt, interventions=[Ablate(unit)]).logits[0][0, 31] - plain)
    for units in ([Neurons(1, (4,))], [AttentionKey(1, 2, 0)], [Residual(2, 5)]):
        result = check(model, prompt, units, logit("#31"))
        controls = matched_controls(model, [prompt], units)
        assert float(result["effect"]) == pytest.approx(effect(units[0]), abs=1e-5)
        for draw in (0, 7, 18):
            assert float(result["control_effect"][draw]) == pytest.approx(effect(controls.sets[draw][0]), abs=1e-5)
        others = np.abs(result["control_effect"].values)
        assert float(result["p"]) == pytest.approx(
            (1 + (others >= abs(float(result["effect"]))).sum()) / (1 + len(others))
        )
        assert float(result["p_floor"]) == pytest.approx(1 / (1 + len(others))) and len(others) == len(controls.sets)
        np.testing.assert_allclose(result["control_norm"], controls.norms)
        assert float(result["louder"]) == pytest.approx(controls.louder)


def test_it_finds_the_plant():
    toy, prompt = load("toy-induction"), Prompt.ids([3, 9, 27, 50, 3, 9])
    for head in (Head(0, 0), Head(1, 0)):
        result = check(toy, prompt, [head], logit("#27"), side="lowers")
        assert float(result["p"]) == pytest.approx(1 / 51) and float(result["effect"]) < -5
        assert result.attrs["controls"] == "random directions" and "random directions" in result.attrs["summary"]
    idle = check(toy, prompt, [Head(1, 1)], logit("#27"))
    assert float(idle["p"]) == 1.0 and float(idle["effect"]) == 0.0


def test_the_side_is_the_claims():
    toy, prompt = load("toy-induction"), Prompt.ids([3, 9, 27, 50, 3, 9])
    raises = check(toy, prompt, [Head(1, 0)], logit("#27"), side="raises")
    assert float(raises["p"]) > 0.9


def test_prompts_that_suggested_the_claim_do_not_check_it_and_intervals_need_sixteen():
    toy = load("toy-induction")
    generator = torch.manual_seed(0)
    prompts = [
        Prompt.ids([a, b, c, a])
        for a, b, c in (torch.randperm(60, generator=generator)[:3].tolist() for _ in range(17))
    ]
    few = check(toy, prompts[:3], [Head(1, 0)], suggested_by=prompts[:1])
    assert few.sizes["prompt"] == 2 and np.isnan(float(few["effect_low"]))
    nearly = check(toy, prompts[:16], [Head(1, 0)], suggested_by=prompts[:1])
    assert nearly.sizes["prompt"] == 15 and np.isnan(float(nearly["effect_high"]))
    assert "interval" not in nearly.attrs["summary"]
    many = check(toy, prompts, [Head(1, 0)], suggested_by=prompts[:1])
    assert many.sizes["prompt"] == 16 and "n = 16) on 16 prompts" in many.attrs["summary"]
    assert float(many["effect_low"]) <= float(many["effect"]) <= float(many["effect_high"])
    alone = check(toy, prompts[:1], [Head(1, 0)], suggested_by=prompts[:1])
    assert alone.sizes["prompt"] == 1


def test_a_prompt_that_comes_twice_counts_once():
    """Sixteen copies had an interval over sixteen prompts, of no width."""
    toy = load("toy-induction")
    again = check(toy, [Prompt.ids([3, 7, 11, 3])] * 16 + [Prompt.ids([4, 7, 11, 4])], [Head(1, 0)])
    once = check(toy, [Prompt.ids([3, 7, 11, 3]), Prompt.ids([4, 7, 11, 4])], [Head(1, 0)])
    assert again.sizes["prompt"] == 2 and "on 2 prompts" in again.attrs["summary"]
    xr.testing.assert_allclose(again["effect"], once["effect"])
    assert again["effect_by_prompt"].values.tolist() == once["effect_by_prompt"].values.tolist()
    two = [{"target": "#7"}, {"target": "#11"}]  # other things measured of one prompt are other numbers
    assert check(toy, [Prompt.ids([3, 7, 11, 3])] * 2, [Head(1, 0)], two).sizes["prompt"] == 2


@pytest.mark.parametrize("method", ["zero", "mean", "resample"])
def test_every_method_and_kind_runs_and_is_what_it_says(method):
    model = tiny_model("llama", n_layers=4)
    corrupt = Prompt.ids([5, 17, 41, 23, 60, 8, 70, 30, 11, 9]) if method == "resample" else None
    for units in ([Neurons(1, (3,))], [Neurons(1, (3, 9, 12))], [MLP(2)], [Head(1, 2)]):
        result = check(model, PROMPT, units, logit("#31"), method, corrupt=corrupt)
        assert result.sizes["draw"] >= 19 and np.isfinite(result["control_effect"]).all()
        assert str(units[0]) in result.attrs["summary"] and method in result.attrs["summary"]
    zero = observe(model, PROMPT, interventions=[Ablate(Neurons(1, (3, 9, 12)))]).logits[0][0, 31]
    if method == "zero":
        expected = zero - observe(model, PROMPT).logits[0][0, 31]
        found = check(model, PROMPT, [Neurons(1, (3, 9, 12))], logit("#31"))
        assert float(found["effect"]) == pytest.approx(float(expected), abs=1e-5)


def test_edges_are_checked_against_edges_into_the_same_queries():
    model, prompt = tiny_model("llama"), Prompt.ids(list(range(3, 23)))
    edges = [AttentionEdge(1, 2, query=19, key=4), AttentionEdge(0, 1, query=12, key=3)]
    result = check(model, prompt, edges, logit("#31"))
    assert result.sizes["draw"] >= 19 and result.attrs["controls"] == "matched units"
    assert "controls of edges into the same queries within a factor 1.5 of its norm" in result.attrs["summary"]
    both = observe(model, prompt, interventions=[Ablate(edge) for edge in edges]).logits[0][0, 31]
    plain = observe(model, prompt).logits[0][0, 31]
    assert float(result["effect"]) == pytest.approx(float(both - plain), abs=1e-5)


@pytest.mark.parametrize(
    "units", [[Head(1, 1)], [Attention(1)], [AttentionKey(1, 1, 0)], [AttentionEdge(1, 1, 4, 2)], [Residual(1, 3)]]
)
def test_where_units_are_too_few_directions_stand_in(units):
    toy, prompt = load("toy-induction"), Prompt.ids([3, 9, 27, 3, 9])
    result = check(toy, prompt, units, logit("#27"))
    if result.attrs["controls"] == "random directions":
        assert np.isnan(float(result["louder"])) and "random directions" in result.attrs["summary"]
        assert "than its like" not in result.attrs["summary"]
    else:
        assert isinstance(units[0], AttentionKey | AttentionEdge | Residual)
    assert result.sizes["draw"] >= 19 and np.isfinite(result["control_effect"]).all()


def test_the_prediction_that_is_measured_may_be_any_of_the_prompts():
    model = tiny_model("llama", n_layers=4)
    result = CausalCheck(units="L1N5", metric="logit difference", target="#31", pos=6).run(model, PROMPT)
    edited = observe(model, PROMPT, positions=[6], interventions=[Ablate(Neurons(1, (5,)))]).logits[0][0, 31]
    plain = observe(model, PROMPT, positions=[6]).logits[0][0, 31]
    assert float(result["effect"]) == pytest.approx(float(edited - plain), abs=1e-5)


def test_a_claim_louder_than_all_its_like_is_not_tested_beside_quieter_ones():
    """The planted heads' keys are far louder than the idle ones: before, those were its like, at p = 1/51."""
    toy = load("toy-induction")
    result = check(toy, Prompt.ids([3, 9, 27, *range(30, 44), 3, 9]), [AttentionKey(1, 0, 2)], logit("#27"))
    assert result.attrs["controls"] == "none" and np.isnan(float(result["p"])) and result.sizes["draw"] == 0
    assert "No test beside its like: L1H0 key 2 has " in result.attrs["summary"]
    assert "it more than" not in result.attrs["summary"] and result.sizes["component"] > 30
    assert controls_figure(result).data and norms_figure(result).data


def test_a_wider_caliper_is_asked_for_and_said():
    model = tiny_model("llama", n_layers=4)
    narrow, wide = (check(model, PROMPT, "L2N5", logit("#31"), caliper=caliper, peers=0) for caliper in (2.0, 8.0))
    for result, caliper in ((narrow, 2.0), (wide, 8.0)):
        low, high = float(result["control_norm_low"]), float(result["control_norm_high"])
        assert 1 / caliper <= low <= high <= caliper
        assert f"within a factor {caliper:g} of its norm ({low:.2f} to {high:.2f} times it)" in result.attrs["summary"]
        assert (low, high) == pytest.approx((float(result["control_norm"].min()), float(result["control_norm"].max())))
    assert narrow.sizes["draw"] <= wide.sizes["draw"] == 50 and narrow.attrs["window"] >= wide.attrs["window"]


def test_directions_leave_position_0_alone():
    """A step at position 0 breaks the model whatever the unit: the sink's state is unlike any other."""
    model = tiny_model("llama", n_layers=4)
    result = check(model, PROMPT, "L1 mlp", {"kind": "logit difference", "target": "#31", "position": 0})
    assert result.attrs["controls"] == "random directions" and "at every position but 0" in result.attrs["summary"]
    np.testing.assert_allclose(result["control_effect"], 0.0, atol=1e-6)  # nothing behind position 0 reaches it
    assert abs(float(result["effect"])) > 1e-3


def test_bad_claims_are_refused():
    model = tiny_model("llama")
    bad = [
        dict(units=[Head(9, 0)]),
        dict(units=[Head(0, 0), MLP(1)]),
        dict(units=[]),
        dict(units=[Head(0, 0)], side="up"),
        dict(units=[Head(0, 0)], n_controls=10),
        dict(units=[Head(0, 0)], method="resample"),
        dict(units=[Head(0, 0)], method="resample", corrupt=Prompt.ids([1, 2])),
        dict(units=[Head(0, 0)], metric=logit("#400")),
        dict(units=[Head(0, 0)], metric={"position": 10}),
        dict(units=[Residual(1)]),
        dict(units=[Residual(1, 10)]),
        dict(units=[AttentionKey(1, 0, 12)]),
        dict(units=[AttentionKey(1, 0, 2)], method="mean"),
        dict(units=[Neurons(1, (3, 4)), Neurons(1, (4,))]),
        dict(units="L1H0 and L1H1"),
    ]
    for options in bad:
        with pytest.raises(InputError):
            check(model, PROMPT, **options)


def test_it_reports_progress_yields_partial_results_and_can_be_cancelled():
    model, shares = tiny_model("llama", n_layers=4), []
    parts = list(checking(model, PROMPT, [Neurons(3, (1,))], progress=shares.append, n_controls=120, caliper=9.0))
    assert len(parts) > 1 and parts[-1].sizes["draw"] == 120 and parts[0].sizes["draw"] < 120
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)

    def stop(share):
        raise Cancelled

    plain = observe(model, PROMPT).logits[0]
    with pytest.raises(Cancelled):
        list(checking(model, PROMPT, [Head(0, 0)], progress=stop))
    assert torch.equal(observe(model, PROMPT).logits[0], plain)


def test_the_entry_takes_units_by_name():
    model = tiny_model("llama", n_layers=4)
    for text, units in (
        ("L2N5", [Neurons(2, (5,))]),
        ("L2N5,9 L1N3", [Neurons(2, (5, 9)), Neurons(1, (3,))]),
        ("L1H2 L2H0", [Head(1, 2), Head(2, 0)]),
        ("L1H2:7<-3", [AttentionEdge(1, 2, 7, 3)]),
    ):
        result = CausalCheck(units=text, metric="logit difference", target="#31").run(model, PROMPT)
        assert result.attrs["units"] == text
        assert float(result["effect"]) == float(check(model, PROMPT, units, logit("#31"))["effect"])
    figure = controls_figure(result.assign_attrs(metric="logit of '<b>'"))
    assert "&lt;b&gt;" in figure.layout.xaxis.title.text  # a token is data, never markup
    assert figure.data
    with pytest.raises(InputError):
        CausalCheck().run(model)


def test_other_prompts_check_what_the_shown_one_suggested(default_model):
    countries = "The capital of Italy is | The capital of Spain is | The capital of Japan is"
    asked = CausalCheck(units="L29H3", metric="loss", others=countries, controls=19, peers=0)
    result = asked.run(default_model, "The capital of France is")
    assert result.sizes["prompt"] == 3
    own = check(default_model, "The capital of Italy is", [Head(29, 3)], {"kind": "loss"}, n_controls=19, peers=0)
    assert float(result["effect_by_prompt"][0]) == pytest.approx(float(own["effect"]), abs=1e-4)


def test_a_block_is_set_beside_the_few_others():
    """Three other MLPs are too few for a test: directions stand in, and the three are counted beside it."""
    model = tiny_model("llama", n_layers=4)
    result = check(model, PROMPT, "L2 mlp", logit("#31"), side="lowers")
    effect = lambda layer: float(
        observe(model, PROMPT, interventions=[Ablate(MLP(layer))]).logits[0][0, 31]
        - observe(model, PROMPT).logits[0][0, 31]
    )
    assert result["label"].values.tolist() == ["L0 MLP", "L1 MLP", "L3 MLP"]
    np.testing.assert_allclose(result["peer_effect"], [effect(layer) for layer in (0, 1, 3)], atol=1e-5)
    as_much = sum(effect(layer) <= effect(2) for layer in (0, 1, 3))
    sentence = result.attrs["summary"]
    assert f"Of the 3 other MLPs, whatever their norm, removed one by one, {as_much or 'none'} lower" in sentence
    assert sentence.index("other MLPs") < sentence.index("random directions")  # the peers come first
    result["peer_effect"][0] = 1e6
    strokes = controls_figure(result).data[1]
    assert strokes.name == "the others (2 of 3; the rest lie outside)" and strokes.text == ("L1 MLP", "L3 MLP")
    assert "peer_effect" not in check(tiny_model("llama", n_layers=4), PROMPT, "L1N5", logit("#31"), peers=0)


def test_it_says_what_is_measured_and_where(default_model):
    # a neuron of the last layer: nothing but that layer is computed anew for each of its controls
    said = lambda prompts, metric: check(default_model, prompts, "L29N3", metric, n_controls=19, peers=0).attrs[
        "metric"
    ]
    france, italy = "The capital of France is", "The capital of Italy is"
    assert said(france, None) == "log-probability of ' Paris' at the last position"
    assert said(france, {"position": 3}) == "log-probability of ' the' at position 3 (' of')"
    assert said([france, italy], None) == "log-probability of each prompt's target at the last position"
    pair = {"kind": "logit difference", "target": " Paris", "against": " Rome"}
    assert said([france, italy], pair) == "logit of ' Paris' minus ' Rome' at the last position"
    assert said([france, italy], {"kind": "loss"}) == "mean surprisal of the prompt's tokens"


def test_induction_is_checked_on_repeated_tokens_drawn_anew():
    """The planted induction head is what makes the toy repeat itself; sixteen sequences give an interval."""
    toy = load("toy-induction")
    found = CausalCheck(units="L1H0", metric="repetition", on="repeated tokens", side="lowers").run(toy)
    assert (
        found.sizes["prompt"] == 16 and float(found["effect_high"]) < -1 and float(found["p"]) == pytest.approx(1 / 51)
    )
    assert "repeated tokens" in found.attrs["metric"] and "on 16 prompts" in found.attrs["summary"]
    with pytest.raises(InputError, match=r"others, and on='repeated tokens'"):
        CausalCheck(on="repeated tokens", others="#3 #4|#5 #6").run(toy)
    drawn = [{one.ids for one in repeated_tokens(toy, seed)} for seed in (0, 1)]
    suggested = {one.ids for one in InductionHeads().stimulus(toy).tokens}
    assert not drawn[0] & drawn[1] and not drawn[0] & suggested


@pytest.mark.parametrize("unit, hook", [(MLP(2), MLP_OUT), (Head(1, 3), ATTN_RESULT), (Residual(1, 4), RESID_PRE)])
def test_a_direction_is_as_long_at_each_position_as_what_the_removal_changes_there(unit, hook):
    model = tiny_model("llama", n_layers=4)
    base, own = base_run(model, PROMPT), [Ablate(unit)]
    before, after = (
        record(model, base.tokens, [hook], [unit.layer], interventions=edits).values[hook, unit.layer]
        for edits in ((), own)
    )
    expected = (after - before).flatten(1).norm(dim=-1) if hook is not ATTN_RESULT else (after - before).norm(dim=-1)
    for cell in _direction_cells(model, base, [unit], own, 3, seed=0):
        found = cell[0].direction.norm(dim=-1)
        assert found[0] == 0
        torch.testing.assert_close(found[1:], expected.reshape(len(found))[1:], atol=1e-5, rtol=1e-5)
    if isinstance(unit, MLP):
        assert expected[1:].max() > 1.2 * expected[1:].min()  # one length for all positions would show


def test_a_position_outside_of_the_prompt_is_refused_before_anything_runs():
    """The page fills it in from a selection, and keeps it for a shorter prompt: Start has to say so."""
    toy = load("toy-induction")
    tokens = tokenise(toy, Prompt.ids([3, 7, 9, 5]))
    with pytest.raises(InputError, match="position 6; expected positions from 0 to 3"):
        CausalCheck(units="L1H0", pos=6).fits(toy, tokens)
    CausalCheck(units="L1H0", pos=-4).fits(toy, tokens)
    CausalCheck(units="L1H0", pos=6, metric="repetition").fits(toy, tokens)  # which is of no position
