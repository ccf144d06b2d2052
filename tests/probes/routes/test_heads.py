"""Heads on routes: every start walked at once against one walk each, a known circuit, and heads whose loss is felt."""

import numpy as np
import pytest
import torch

from probes.routes import heads, task_heads
from probes.routes.extraction import Rule, extract
from probes.routes.flow_routes import FlowRoutes
from probes.routes.heads import FlowRouteHeads
from probes.routes.task_heads import FlowRouteTaskHeads
from probes.stimuli import ioi_prompts
from tests.tiny_models import KINDS, spelling, tiny_hf, tiny_model
from workbench import Prompt, load, observe, wrap
from workbench.errors import InputError
from workbench.intervene import Ablate, Head, Knockout, Steer
from workbench.models.prompt import tokenise
from workbench.words import hundredths

IDS = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7, 31, 64, 12])


@pytest.fixture(scope="module", params=KINDS)
def result(request):
    model = tiny_model(request.param, n_layers=3)
    tokens = tokenise(model, IDS)
    return FlowRoutes().analyse(observe(model, tokens, FlowRoutes().needs(model, tokens)))


@pytest.mark.parametrize("settings", [{"threshold": 0.02}, {"coverage": 0.6}])
def test_all_starts_at_once_equal_one_graph_each(result, settings):
    strength, is_on = heads.head_strength(result, Rule(**settings))
    for start in (0, 4, 10):
        graph = extract(result, start=start, **settings)
        expected = np.zeros(strength.shape[1:])
        edges = graph.isel(edge=graph["kind"].values == "attention")
        np.add.at(expected, (edges["edge_layer"].values, edges["edge_head"].values), edges["weight"].values)
        np.testing.assert_allclose(strength[start], expected, atol=1e-5)
        assert ((expected > 0) == is_on[start]).all()


def test_the_induction_heads_stand_on_routes_and_the_idle_ones_do_not():
    model = load("toy-induction")
    rng = np.random.default_rng(0)
    texts = [tokenise(model, np.tile(rng.permutation(64)[:8], 2).tolist()) for _ in range(4)]
    *_, found = heads.head_importance(model, [heads.Texts("repeats", tuple(texts))], Rule(threshold=0.01))
    assert found["frequency"].values[:, 1].max() == 0 and found["frequency"].values[:, 0].min() > 0.9
    assert np.isnan(found["strength_low"]).all() and found["strength_by_domain"].shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("text", "domain", "kind"),
    [
        (" the", "prose", "word start"),
        ("ing", "prose", "word part"),
        (".\n", "prose", "punctuation"),
        (" 17", "prose", "digit"),
        (" the", "code", "code"),
    ],
)
def test_kinds_of_token(text, domain, kind):
    assert heads.token_kind(text, domain) == kind


def test_a_study_yields_as_it_goes_and_draws_what_it_has():
    model = tiny_model("llama")
    shares = []
    results = list(FlowRouteHeads(n_texts=9, length=6).partials(model, progress=shares.append))
    assert len(results) == 2 and results[0].attrs["n_texts"] == 8 and shares[-1] == 1
    assert results[-1]["strength_by_kind"].sel(group="digit").isnull().sum() == 0  # ids print as #17
    for figure in heads.VIEW.figures:
        assert len(figure(results[-1]).data) > 0


def test_interventions_change_the_strength_as_by_hand():
    model, edits, routes = (
        tiny_model("llama"),
        [Ablate(Head(0, 1)), Steer(0, torch.ones(32))],
        FlowRoutes(min_coverage=0.0),
    )
    study = FlowRouteHeads(n_texts=3, length=8)
    strength = []
    for tokens in heads.corpus_texts(model, 3, 8, 0)[0].tokens:
        seen = observe(model, tokens, routes.needs(model, tokens), interventions=edits)
        strength.append(heads.head_strength(routes.analyse(seen), Rule(threshold=0.01))[0][1:].mean(0))
    found = study.run(model, interventions=edits)
    np.testing.assert_array_equal(found["strength"], np.mean(strength, 0))
    assert not np.allclose(found["strength"], study.run(model)["strength"], atol=1e-4)


def test_one_rule_at_a_time():
    with pytest.raises(InputError, match="one of the two"):
        FlowRouteHeads(coverage=0.5, threshold=0.1).run(tiny_model("llama"))


# --- the task ---------------------------------------------------------------------------------------------------------


def test_prompts_of_the_task_differ_from_their_baseline_in_who_gives():
    prompts = ioi_prompts(50)
    assert prompts == ioi_prompts(50) != ioi_prompts(50, seed=1)
    for one in prompts:
        assert one["task"].count(one["wrong"].strip()) == 2 and one["task"].count(one["answer"].strip()) == 1
        assert one["baseline"].count(one["wrong"].strip()) == 1 == one["baseline"].count(one["answer"].strip())
        assert one["task"].replace(one["wrong"].strip(), "") != one["task"]


def test_heads_that_only_one_set_of_prompts_uses_stand_out():
    """Repeats against none in the induction circuit: only with a repeat does L1H0 attend to one key and not to all
    alike, so that one of its edges is above 0.15, and leads on to a row that L0H0 wrote. The other heads are idle."""
    model = load("toy-induction")
    rng = np.random.default_rng(0)
    rows = [rng.permutation(64)[:10].tolist() for _ in range(32)]
    task, baseline = [[*row[:5], row[1]] for row in rows[:16]], [row[:6] for row in rows[16:]]
    found = task_heads.contrast(model, task, baseline, threshold=0.15, seed=0)
    assert (found["difference_low"].values > 0).tolist() == [[True, False], [True, False]]
    assert (found["q"].values < 0.05).tolist() == [[True, False], [True, False]]
    hidden = model.edited([Knockout((5,), (2,), (1,), (0,))])  # the key that a repeat makes it attend to
    found = task_heads.contrast(hidden, task, baseline, threshold=0.15, seed=0)
    assert found["difference"].values[1, 0] == 0


def test_a_model_without_a_tokenizer_is_told_so():
    with pytest.raises(InputError, match="no tokenizer"):
        FlowRouteTaskHeads().run(tiny_model("llama"))


def test_no_more_heads_are_taken_than_random_ones_are_left():
    """Before any pass: there would be too few others to draw as many from."""
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")  # 8 heads
    with pytest.raises(InputError, match="top=5; expected at most 4, half of the heads"):
        FlowRouteTaskHeads(top=5).run(model)
    FlowRouteTaskHeads(top=4).fits(model, None)


@pytest.mark.slow
def test_heads_found_on_the_task_are_needed_and_random_ones_are_not(default_model):
    found = FlowRouteTaskHeads(n_prompts=12, draws=8).run(default_model)
    assert float(found["clean"]) > 1.5
    assert float(found["ablated"]) < float(found["random"].min()) and float(found["p"]) < 0.12
    for figure in task_heads.VIEW.figures:
        assert len(figure(found).data) > 0


def test_p_of_an_ablation_is_small_where_it_does_more_harm_than_random_heads():
    model = load("toy-induction")
    rows = [[3, 9, 27, 50, 3, 9], [8, 40, 21, 5, 8, 40]]
    prompts = [{"task": Prompt.ids(row), "answer": f"#{row[2]}", "wrong": f"#{row[3]}"} for row in rows]
    needed = task_heads.ablation(model, prompts, [(1, 0)], draws=12, seed=0)
    assert float(needed["ablated"]) < float(needed["clean"]) - 1
    idle = task_heads.ablation(model, prompts, [(1, 1)], draws=12, seed=0)
    assert float(idle["p"]) == 1.0  # no random head does less harm than none
    # The other planted head is among the random ones: what it does as well counts against the claim.
    random = needed["random"].values
    assert float(needed["p"]) == pytest.approx((1 + (random <= float(needed["ablated"])).sum()) / 13)
    assert float(needed["p"]) < 0.8
    assert needed.attrs["summary"].endswith(
        f"random heads {hundredths(random.mean())} on average of 12 draws (p = {float(needed['p']):.2g})."
    )
