"""Causal check: calibrated where nothing is claimed, finds what was planted, and says what it compared with."""

import numpy as np
import pytest
import torch

from probes.causal_check import ENTRY, check, checking, controls_figure, draw_controls, output_norms, run
from tests.tiny_models import tiny_model
from workbench.errors import Cancelled, InputError
from workbench.hooks import ATTN_OUT, Z
from workbench.intervene import MLP, Ablate, AttentionEdge, Head, Neurons
from workbench.metrics import make_metric
from workbench.models.loading import load, wrap
from workbench.models.toys.transformer import ToyConfig, ToyTransformer
from workbench.observation import observe
from workbench.prompt import Prompt
from workbench.recording import record
from workbench.statistics import monte_carlo_p
from workbench.sweeps import base_run, values_of

PROMPT = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])
LEVELS = (0.02, 0.1, 0.2, 0.5)


def unequal_toy(seed: int):
    """Random weights; in each layer half of 128 heads are ten times louder than the others, and layers differ."""
    torch.manual_seed(seed)
    module = ToyTransformer(ToyConfig(n_layers=3, n_heads=128, d_model=48, d_head=4, d_vocab=48, n_ctx=16))
    with torch.no_grad():
        for block, loud in zip(module.blocks, (0.5, 2.0, 1.0), strict=True):
            scale = loud * torch.where(torch.arange(128) % 2 == 0, 1.0, 0.1) * (1 + 0.05 * torch.randn(128))
            block.W_O.mul_(scale[:, None, None] / block.W_O.flatten(1).norm(dim=1)[:, None, None])
    return wrap(module, None, name=f"unequal-{seed}")


def effects_of_all_heads(model, prompt):
    """Effect of zeroing each head on the top token's logit, `[layer, head]`."""
    base = base_run(model, prompt)
    metric = make_metric(model, base.tokens, base.logits(model))
    sizes = model.sizes
    cells = [[Ablate(Head(layer, head))] for layer in range(sizes.n_layers) for head in range(sizes.n_heads)]
    values = values_of(model, base, cells, metric) - base.value(model, metric)
    return values.view(sizes.n_layers, sizes.n_heads).double().numpy()


def p_values(matched: bool, n_models: int = 8) -> np.ndarray:
    """p of null claims, as a descriptive score makes them: about loud heads, which matter no more than their like."""
    found = []
    for seed in range(n_models):
        model, prompt = unequal_toy(seed), Prompt.ids([3, 9, 27, 33, 41, 2])
        effects, norms = effects_of_all_heads(model, prompt), output_norms(model, [prompt], Head)
        for layer in range(3):
            for head in range(0, 128, 2):
                controls = draw_controls(norms, [(layer, head)], matched=matched, seed=head)
                others = np.array([effects[one[0]] for one in controls.sets])
                found.append(float(monte_carlo_p(abs(effects[layer, head]), np.abs(others))))
    return np.array(found)


def test_the_check_is_calibrated_over_null_claims():
    p = p_values(matched=True)
    assert len(p) == 1536
    for level in LEVELS:
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(p)), level


def test_without_matching_it_is_not():
    p = p_values(matched=False, n_models=3)
    excess = [(p <= level).mean() - level - 3 * np.sqrt(level * (1 - level) / len(p)) for level in LEVELS]
    assert max(excess) > 0.1


def test_the_check_is_made_of_the_parts_that_were_calibrated():
    model, prompt = unequal_toy(0), Prompt.ids([3, 9, 27, 33, 41, 2])
    effects, norms = effects_of_all_heads(model, prompt), output_norms(model, [prompt], Head)
    result = check(model, prompt, [Head(1, 4)])
    controls = draw_controls(norms, [(1, 4)])
    expected = [effects[one[0]] for one in controls.sets]
    np.testing.assert_allclose(result["control_effect"], expected, atol=1e-5)
    np.testing.assert_allclose(float(result["effect"]), effects[1, 4], atol=1e-5)
    assert float(result["p"]) == pytest.approx(float(monte_carlo_p(abs(effects[1, 4]), np.abs(expected))))
    assert float(result["p_floor"]) == pytest.approx(1 / 51)


def test_controls_come_from_the_same_layer_first_and_are_nearest_in_norm():
    norms = np.random.default_rng(0).normal(size=(4, 60))
    controls = draw_controls(norms, [(2, 7)])
    assert controls.window == 0 and len(set(controls.sets)) == 50
    chosen = [norms[one[0]] for one in controls.sets]
    left = [norms[2, head] for head in range(60) if head != 7 and ((2, head),) not in controls.sets]
    assert max(abs(np.array(chosen) - norms[2, 7])) <= min(abs(np.array(left) - norms[2, 7]))


def test_nine_heads_per_layer_give_a_window_of_three():
    norms = np.random.default_rng(0).normal(size=(30, 9))
    assert draw_controls(norms, [(15, 4)]).window == 3
    assert draw_controls(norms, [(0, 4)]).window == 5  # 9 heads in each of 6 layers


def test_sets_of_several_units_are_distinct_matched_and_without_the_claim():
    norms = np.random.default_rng(0).normal(size=(30, 9)) + 5 * (np.arange(9) < 3)
    claim = [(10, 0), (10, 1), (14, 2)]
    controls = draw_controls(norms, claim)
    assert len(set(controls.sets)) == 50 and all(len(set(one)) == 3 for one in controls.sets)
    assert not any(set(one) & set(claim) for one in controls.sets)
    assert np.mean([head < 3 for one in controls.sets for _, head in one]) > 0.9  # loud ones for loud ones


def test_norms_are_norms_of_what_is_added():
    model = tiny_model("llama")
    w, z = model.weights(1), record(model, PROMPT, [Z, ATTN_OUT])
    out = torch.einsum("the,hed->thd", z.values[Z, 1], w.W_O)
    expected = out[1:].square().sum(-1).mean(0).sqrt().log()
    np.testing.assert_allclose(output_norms(model, [PROMPT], Head)[1], expected, atol=1e-5)


def test_it_finds_the_plant():
    toy, prompt = load("toy-induction"), Prompt.ids([3, 9, 27, 50, 3, 9])
    for head in (Head(0, 0), Head(1, 0)):
        result = check(toy, prompt, [head], {"target": "#27"}, side="lowers")
        assert float(result["p"]) == pytest.approx(1 / 51) and float(result["effect"]) < -5
        assert result.attrs["controls"] == "random directions" and "too few units" in result.attrs["sentence"]
    idle = check(toy, prompt, [Head(1, 1)], {"target": "#27"})
    assert float(idle["p"]) == 1.0 and float(idle["effect"]) == 0.0


def test_the_side_is_the_claims():
    toy, prompt = load("toy-induction"), Prompt.ids([3, 9, 27, 50, 3, 9])
    raises = check(toy, prompt, [Head(1, 0)], {"target": "#27"}, side="raises")
    assert float(raises["p"]) > 0.9


def test_prompts_that_suggested_the_claim_do_not_check_it_and_intervals_need_eight():
    toy = load("toy-induction")
    generator = torch.manual_seed(0)
    prompts = [
        Prompt.ids([a, b, c, a]) for a, b, c in (torch.randperm(60, generator=generator)[:3].tolist() for _ in range(9))
    ]
    few = check(toy, prompts[:3], [Head(1, 0)], suggested_by=prompts[:1])
    assert few.sizes["prompt"] == 2 and np.isnan(float(few["effect_low"]))
    many = check(toy, prompts, [Head(1, 0)], suggested_by=prompts[:1])
    assert many.sizes["prompt"] == 8
    assert float(many["effect_low"]) <= float(many["effect"]) <= float(many["effect_high"])
    alone = check(toy, prompts[:1], [Head(1, 0)], suggested_by=prompts[:1])
    assert alone.sizes["prompt"] == 1


@pytest.mark.parametrize("method", ["zero", "mean", "resample"])
def test_every_method_and_kind_runs_and_is_what_it_says(method):
    model = tiny_model("llama", n_layers=4)
    corrupt = Prompt.ids([5, 17, 41, 23, 60, 8, 70, 30, 11, 9]) if method == "resample" else None
    for units in ([Neurons(1, (3,))], [Neurons(1, (3, 9, 12))], [MLP(2)], [Head(1, 2)]):
        result = check(model, PROMPT, units, {"target": "#31"}, method, corrupt=corrupt)
        assert result.sizes["draw"] == 50 and np.isfinite(result["control_effect"]).all()
        assert str(units[0]) in result.attrs["sentence"] and method in result.attrs["sentence"]
    zero = observe(model, PROMPT, interventions=[Ablate(Neurons(1, (3, 9, 12)))]).logits[0][0, 31]
    if method == "zero":
        expected = zero - observe(model, PROMPT).logits[0][0, 31]
        found = check(model, PROMPT, [Neurons(1, (3, 9, 12))], {"target": "#31"})
        assert float(found["effect"]) == pytest.approx(float(expected), abs=1e-5)


def test_an_edge_is_checked_against_other_edges_into_its_query():
    model = tiny_model("llama")
    result = check(model, Prompt.ids(list(range(3, 23))), [AttentionEdge(1, 2, query=19, key=4)])
    assert result.sizes["draw"] == 50 and result.attrs["controls"] == "other edges"
    assert "other edges into the same queries" in result.attrs["sentence"]


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
        dict(units=[Head(0, 0)], metric={"target": "#400"}),
    ]
    for options in bad:
        with pytest.raises(InputError):
            check(model, PROMPT, **options)


def test_it_reports_progress_yields_partial_results_and_can_be_cancelled():
    model, shares = tiny_model("llama", n_layers=4), []
    parts = list(checking(model, PROMPT, [Neurons(3, (1,))], progress=shares.append, n_controls=120))
    assert len(parts) > 1 and parts[-1].sizes["draw"] == 120 and parts[0].sizes["draw"] < 120
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)

    def stop(share):
        raise Cancelled

    plain = observe(model, PROMPT).logits[0]
    with pytest.raises(Cancelled):
        list(checking(model, PROMPT, [Head(0, 0)], progress=stop))
    assert torch.equal(observe(model, PROMPT).logits[0], plain)


def test_the_entry_checks_the_current_selection():
    model = tiny_model("llama", n_layers=4)
    result = run(model, PROMPT, kind="neuron", layer=2, neuron=5, target="#31")
    expected = check(model, PROMPT, [Neurons(2, (5,))], {"target": "#31"})
    assert float(result["effect"]) == float(expected["effect"])
    assert controls_figure(result).data and ENTRY.scope == "study"
    with pytest.raises(InputError):
        run(model, None)


@pytest.mark.slow
def test_fifty_controls_cost_at_most_thirty_bare_forwards(default_model):
    """Processor time: on a loaded machine wall times compare nothing."""
    import time

    prompt = Prompt.ids([1, *range(1000, 1031)])
    observe(default_model, prompt), check(default_model, prompt, [Head(18, 6)])
    start = time.process_time()
    for _ in range(5):
        observe(default_model, prompt)
    bare = (time.process_time() - start) / 5
    start = time.process_time()
    check(default_model, prompt, [Head(18, 6)])
    assert (time.process_time() - start) / bare <= 30
