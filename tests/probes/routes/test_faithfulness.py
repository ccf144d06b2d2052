"""Faithfulness: its two ends, a forward pass written out by hand, its control, and what a route's edges are worth."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from probes.routes import faithfulness as faith
from probes.routes.extraction import DEFAULT_COVERAGE, Rule
from probes.routes.faithfulness import FlowRouteFaithfulness
from probes.routes.only_edges import CleanPass, edge_masks
from tests.tiny_models import KINDS, tiny_model
from workbench import Need, Prompt, keep, load, observe
from workbench.errors import InputError, RefusedError
from workbench.intervene import Ablate, Head, Knockout
from workbench.models.hooks import PATTERN, V
from workbench.models.prompt import tokenise
from workbench.observation.recording import measure_means

IDS = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7, 31, 64])
RULES = [Rule(coverage=0.5), Rule(threshold=0.05)]


def last(generator):
    *_, result = generator
    return result


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def setting(model):
    """The study of a prompt, and the graphs of two rules."""
    run = faith._Run.of(model, tokenise(model, IDS), None, measure_means(model, hooks=(V,)), 2)
    return run, edge_masks(run.routes(0.0, 1.0), RULES, model.sizes.n_heads)


def test_all_edges_kept_reproduce_the_logits(model, setting):
    run, graphs = setting
    found, growth = run.outcomes(torch.ones_like(graphs), 0)
    clean = observe(model, IDS).log_probs[0]
    torch.testing.assert_close(found, clean.expand_as(found), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(growth, torch.ones(2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("edits", [(), (Ablate(Head(0, 1)), Knockout((7,), (2,), (1,)))])
def test_removed_edges_bring_the_mean_value_as_in_a_pass_by_hand(edits):
    """A llama of two layers, written out: z of every row from the kept edges, the means and key 0's own value.

    Interventions of the run reach it too: a head that is ablated stays so, whatever edges of it are kept.
    """
    model = tiny_model("llama").edited(edits)
    means = measure_means(model, hooks=(V,))
    run = faith._Run.of(model, tokenise(model, IDS), None, means, 2)
    graph = edge_masks(run.routes(0.0, 1.0), RULES, model.sizes.n_heads)[0]
    hf, state = model.adapter.hf_model.model, None
    kept = {hook: Need((hook,), keep, dims=hook.dims[1:]) for hook in (PATTERN, V)}
    seen = observe(model, IDS, list(kept.values()))
    norm = lambda x, layer, name: _rms(x, getattr(hf.layers[layer], name))
    state = _raw(hf.embed_tokens)[list(IDS.token_ids)]
    for layer in range(2):
        w, pattern = model.weights(layer), seen[kept[PATTERN]][layer, 0]
        v = torch.einsum("td,hde->the", norm(state, layer, "input_layernorm"), w.W_V)
        for query in range(len(state)):
            out = torch.zeros(model.sizes.d_model)
            for head in range(model.sizes.n_heads):
                if edits and (layer, head) == (0, 1):
                    continue
                for key in range(query + 1):
                    group = head // 2
                    value = v[key, group]
                    if not graph[layer, head, query, key]:
                        value = seen[kept[V]][layer, 0, 0, group] if key == 0 else means.mean(V, layer, model)[group]
                    out += pattern[head, query, key] * value @ w.W_O[head]
            state = state.clone()
            state[query] += out
        mid = norm(state, layer, "post_attention_layernorm")
        state = state + (torch.nn.functional.silu(mid @ w.W_gate) * (mid @ w.W_in)) @ w.W_out
    expected = model.readout.logits(state[-1]).log_softmax(-1)
    found, _ = run.outcomes(graph[None], 0)
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-4)


def test_interventions_change_the_study_and_stand_in_key_and_provenance(model):
    """All edges kept is the model with its interventions; none kept keeps them too."""
    edits = [Ablate(Head(0, 1)), Knockout((7,), (2,), (1,))]
    study = FlowRouteFaithfulness(draws=1, target="#5")
    plain, edited = study.run(model, IDS), study.run(model, IDS, interventions=edits)
    by_hand = observe(model, IDS, interventions=edits).log_probs[0][0, 5]
    assert float(edited["log_prob_full"]) == pytest.approx(float(by_hand), abs=1e-4)
    for name in ("log_prob_full", "log_prob_empty"):
        assert abs(float(edited[name]) - float(plain[name])) > 1e-3
    assert edited.attrs["spec_key"] != plain.attrs["spec_key"]
    assert json.loads(edited.attrs["provenance"])["interventions"] == list(map(str, edits))


def _raw(module):
    return getattr(module, "original_component", module).weight.detach()


def _rms(x, module):
    norm = getattr(module, "original_component", module)
    return x / (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight.detach()


def test_random_graphs_have_as_many_edges_in_every_row(setting):
    run, graphs = setting
    random = run.random_graphs(graphs, torch.Generator().manual_seed(0))
    assert torch.equal(random.sum((2, 4)), graphs.sum((2, 4)))
    visible = torch.ones(run.n_pos, run.n_pos).tril().bool()
    assert not (random & ~visible).any() and not torch.equal(random, graphs)


def test_random_edges_are_drawn_in_proportion_to_attention():
    """One edge in a row of two keys with weights 0.8 and 0.2: the first is drawn four times in five."""
    patterns = torch.tensor([[[[1.0, 0.0], [0.8, 0.2]]]])
    run = faith._Run(CleanPass(None, (0, 1), None, patterns, None, None), 1)
    graph = torch.tensor([[[[[True, False], [True, False]]]]])
    generator = torch.Generator().manual_seed(0)
    share = np.mean([bool(run.random_graphs(graph, generator)[0, 0, 0, 1, 0]) for _ in range(2000)])
    assert share == pytest.approx(0.8, abs=0.03)  # three standard errors


def test_the_induction_route_carries_the_prediction_and_random_edges_do_not():
    """Ablating a route's edges takes the prediction away, ablating as many others of the same rows does not."""
    model = load("toy-induction")
    tokens = [14, 3, 9, 27, 50, 3]
    result = last(FlowRouteFaithfulness(draws=4).curve(model, tokens, coverages=(0.9,), thresholds=()))
    assert result["faithfulness"].item() == pytest.approx(1, abs=1e-3)
    run = faith._Run.of(model, tokenise(model, tokens), None, measure_means(model, hooks=(V,)), 1)
    route = torch.zeros(3, 2, 2, 6, 6, dtype=torch.bool)
    for layer, head, query, key in [(1, 0, 5, 2), (0, 0, 5, 4), (0, 0, 2, 1)]:
        route[:, layer, head, query, key] = True
    others = route.roll(1, dims=2)  # the other head of the same rows and keys
    log_probs, _ = run.outcomes(torch.stack([~route[0], ~others[0], torch.ones_like(route[0])]), 0)
    without_route, without_others, full = log_probs[:, 9].tolist()
    assert full == pytest.approx(without_others, abs=1e-3) and without_route < full - 3  # chance is -4.2


def test_a_gap_too_small_to_share_gives_no_faithfulness(monkeypatch):
    monkeypatch.setattr(faith, "_SMALLEST_GAP", 1e9)
    result = last(FlowRouteFaithfulness(draws=2).curve(tiny_model("llama"), IDS, coverages=(0.5,), thresholds=(0.1,)))
    assert result["faithfulness"].isnull().all() and "no faithfulness" in result.attrs["summary"]
    assert not result["kl"].isnull().any()


def test_edges_that_speak_against_a_token_carry_nothing_of_it():
    """Before, a graph "carried 0.24 of the prediction" of a token that is likelier without any edge."""
    model = load("toy-induction")
    tokens = [14, 3, 9, 27, 50, 3]
    curve = lambda target: last(
        FlowRouteFaithfulness(draws=2, target=target).curve(model, tokens, coverages=(0.9,), thresholds=())
    )
    against = curve("#14")  # what the first token is: the route of the induction head takes its weight away
    likelier = float(against["log_prob_empty"] - against["log_prob_full"])
    assert likelier > 3 and against["faithfulness"].isnull().all() and against["random_faithfulness"].isnull().all()
    assert f"Without any of these edges '#14' is likelier by {likelier:.2f} nats" in against.attrs["summary"]
    assert "carries 1.00 of the prediction" in curve("#9").attrs["summary"]


def test_what_was_tried_is_not_advised():
    row = xr.Dataset({"growth": 171.0, "faithfulness": -1.9})
    assert faith._warning(row, 0).endswith("this F says little. Try first_layer=1.")
    assert faith._warning(row, 1).endswith("this F says little.") and not faith._warning(row.assign(growth=2.0), 0)


def test_where_no_layer_is_named_the_first_without_new_sinks_is_taken(monkeypatch):
    """Growth decides, not what a graph carries; what was taken is in the result and in its sentence."""
    model, plain = tiny_model("llama"), faith._Run.outcomes
    grown = {0: 40.0, 1: 3.0}

    def outcomes(self, masks, first_layer):
        log_probs, growth = plain(self, masks, first_layer)
        if len(masks) > 4:  # not the random ones
            growth = torch.full_like(growth, 500.0)
            growth[2 + 1] = grown[first_layer]  # coverage 0.75, the nearest to 0.8
        return log_probs, growth

    monkeypatch.setattr(faith._Run, "outcomes", outcomes)
    curve = lambda **given: last(
        FlowRouteFaithfulness(draws=1, **given).curve(model, IDS, coverages=(0.3, 0.75), thresholds=(0.01,))
    )
    found, asked = curve(), curve(first_layer=1)
    assert found.attrs["first_layer"] == 1 and "Every edge of layer 0 is kept in all of them." in found.attrs["summary"]
    np.testing.assert_array_equal(found["faithfulness"], asked["faithfulness"])
    np.testing.assert_array_equal(found["random_faithfulness"], asked["random_faithfulness"])
    grown[0] = 9.0
    assert curve().attrs["first_layer"] == 0 and "kept in all" not in curve().attrs["summary"]
    grown |= {0: 40.0, 1: 41.0}  # of the two layers neither is better
    assert curve().attrs["first_layer"] == 0


def test_it_yields_as_it_goes_and_the_last_is_complete():
    results = list(FlowRouteFaithfulness(draws=3).curve(tiny_model("llama"), IDS, thresholds=(0.01,)))
    assert results[0]["random_faithfulness"].isnull().all() and not results[-1]["random_faithfulness"].isnull().any()
    assert set(results[-1]["rule"].values) == {"coverage", "threshold"}
    told = [one.attrs["summary"] for one in results]  # before any was drawn: "random graphs of equal size nan"
    assert not any("nan" in said for said in told) and "random graphs" in told[-1] and "random" not in told[0]
    for figure in faith.VIEW.figures:
        assert len(figure(results[-1]).data) > 0


def test_bad_input_is_refused():
    model = tiny_model("llama")
    with pytest.raises(InputError, match="start=10"):
        FlowRouteFaithfulness(start=10).run(model, IDS)
    with pytest.raises(InputError, match="token"):
        FlowRouteFaithfulness(target="#96").run(model, IDS)


def test_graphs_that_do_not_fit_are_refused_with_the_size(monkeypatch):
    monkeypatch.setattr(faith, "_MASK_BYTES", 1000)
    with pytest.raises(RefusedError, match="GB of graphs"):
        FlowRouteFaithfulness().run(tiny_model("llama"), IDS)


@pytest.mark.slow
def test_on_the_default_model_coverage_carries_paris_and_random_edges_less(default_model):
    result = last(FlowRouteFaithfulness().curve(default_model, "The capital of France is", thresholds=(0.01, 0.04)))
    of = lambda rule, setting: result.isel(
        row=int(np.flatnonzero((result["rule"].values == rule) & (result["setting"].values == setting))[0])
    )
    assert result.attrs["target"] == " Paris"
    assert (
        float(of("coverage", 0.8)["faithfulness"])
        > 0.95
        > 0.5
        > float(of("coverage", 0.8)["random_faithfulness"].mean())
    )
    assert float(of("threshold", 0.04)["faithfulness"]) < 0.2
    assert DEFAULT_COVERAGE == 0.8


def test_kl_is_from_the_full_distribution_to_the_graphs():
    """KL is no distance: turned round it is another number."""
    model = tiny_model("llama")
    means = measure_means(model, hooks=(V,))
    result = last(FlowRouteFaithfulness(draws=1).curve(model, IDS, coverages=(0.3,), thresholds=(), means=means))
    run = faith._Run.of(model, tokenise(model, IDS), None, means, 1)
    graphs = edge_masks(run.routes(0.0, 1.0), [Rule(coverage=0.3)], model.sizes.n_heads)
    graph, full = run.outcomes(graphs, 0)[0][0].double(), observe(model, IDS).log_probs[0][0].double()
    there, back = ((p.exp() * (p - q)).sum() for p, q in ((full, graph), (graph, full)))
    assert abs(there - back) > 1e-3
    assert float(result["kl"][0]) == pytest.approx(float(there), abs=1e-4)


def test_random_graphs_are_drawn_in_proportion_to_attention():
    """One edge a row, 3000 times: how often each edge of the last row is drawn, within five standard errors."""
    model = tiny_model("llama")
    run = faith._Run.of(model, tokenise(model, IDS), None, measure_means(model, hooks=(V,)), 1)
    one = torch.zeros((1, *run.clean.patterns.shape), dtype=torch.bool)
    one[..., 0, :, 0] = True  # rule layer head query key: one edge of every row
    generator, draws = torch.Generator().manual_seed(0), 3000
    drawn = sum(run.random_graphs(one, generator)[0, :, :, -1].double() for _ in range(draws)) / draws
    expected = run.clean.patterns[:, :, -1].double() / model.sizes.n_heads
    torch.testing.assert_close(drawn.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    assert expected.max() > 1.8 * expected.mean()  # attention is uneven here, so that an even draw would show
    assert ((drawn - expected).abs() <= 5 * (expected * (1 - expected) / draws).sqrt() + 1e-9).all()
