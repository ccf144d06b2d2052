"""What flows through a part: parts add up, the published values of neurons, and maps against the plain pattern."""

import numpy as np
import pytest
import torch
import xarray as xr

from apps.explorer.engine.states import RESID, layer_of, slice_of, states_of
from probes.lens.logit_lens import LogitLens
from probes.routes import one_layer
from probes.routes.flow_routes import FlowRoutes, follow
from probes.routes.one_layer import FlowRouteHead, FlowRouteNeurons, FlowRouteNode
from probes.routes.parts import FlowRoutePart
from probes.routes.promoted import logit_contributions
from tests.tiny_models import KINDS, tiny_model
from workbench import Need, Prompt, keep, observe
from workbench.errors import InputError
from workbench.intervene import MLP, Ablate, Head
from workbench.models.hooks import MLP_OUT, PATTERN, RESID_POST, RESID_PRE
from workbench.models.model import LayerWeights
from workbench.models.prompt import tokenise

IDS = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7])


def flow(model, **part):
    return FlowRoutePart(**part).run(model, IDS)


def test_a_target_without_its_space_is_said(default_model):
    said = lambda target: FlowRoutePart(layer=29, target=target).run(default_model, "The capital of France is").attrs
    assert "' the', with a space in front, is likelier here" in said("the")["summary"]
    assert "likelier" not in said(" the")["summary"]


@pytest.mark.parametrize(("kind", "is_capped"), [("gemma2", True), ("gemma3", False)])
def test_where_logits_are_capped_a_part_adds_to_what_stands_before(kind, is_capped):
    """At a cap of 30 a logit of 20 stands for 24 before it, and what a part adds to that is not what it adds to 20."""
    said = flow(tiny_model(kind), layer=1, pos=4, target="#5").attrs["summary"]
    assert ("to the logit of '#5', before the soft cap, and promotes" in said) is is_capped


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return tiny_model(request.param)


def test_published_values_of_neurons():
    """Two neurons write (1, 1) and (2, 2) onto (1, 1), L2: 0.25, 0.5 and 0.25 for the residual."""
    none = torch.zeros(0)
    weights = LayerWeights(
        none, none, none, none, none, W_out=torch.tensor([[1.0, 1.0], [2.0, 2.0]]), b_out=torch.zeros(2)
    )
    target, resid = torch.tensor([4.0, 4.0]), torch.tensor([1.0, 1.0])
    _, shares, rest = one_layer.neuron_shares(torch.ones(2), weights, resid, target, p=2)
    assert [*shares.tolist(), float(rest)] == pytest.approx([0.25, 0.5, 0.25], abs=1e-5)


def test_edges_of_a_head_sum_to_the_head(model):
    whole = float(flow(model, layer=1, pos=4, head=2, target="#5")["target_logit"])
    edges = sum(float(flow(model, layer=1, pos=4, head=2, key=key, target="#5")["target_logit"]) for key in range(5))
    assert edges == pytest.approx(whole, abs=1e-5)


def test_embedding_and_sublayers_sum_exactly_to_the_logit(model):
    """Every layer's attention and MLP, the embedding, and what depends on no prompt."""
    first = Need((RESID_PRE,), keep, dims="pos d_model", layers=(0,))
    final = Need((RESID_POST,), keep, dims="pos d_model", layers=(1,))
    seen = observe(model, IDS, [first, final])
    total = logit_contributions(model.readout, seen[first][0, 0, -1], seen[final][0, 0, -1])[5]
    total = float(total) + float(model.readout.constant(torch.tensor([5]))[0])
    for layer in range(2):
        total += sum(
            float(flow(model, layer=layer, sublayer=s, target="#5")["target_logit"]) for s in ("attention", "mlp")
        )
    assert total == pytest.approx(float(seen.logits[0][0, 5]), abs=1e-4)


def test_neurons_sum_to_the_mlp_without_its_bias(model):
    weights, part = model.weights(1), flow(model, layer=1, pos=3, target="#5")
    total = sum(
        float(flow(model, layer=1, pos=3, neuron=n, target="#5")["target_logit"]) for n in range(model.sizes.d_mlp)
    )
    seen = observe(model, IDS, [final := Need((RESID_POST,), keep, dims="pos d_model", layers=(1,))])
    if weights.post_mlp_gain is None:
        total += float(logit_contributions(model.readout, weights.b_out, seen[final][0, 0, 3])[5])
    assert total == pytest.approx(float(part["target_logit"]), abs=1e-4)


def test_interventions_change_a_part_as_by_hand(model):
    edits = [Ablate(Head(0, 1)), Ablate(MLP(0))]
    need = {hook: Need((hook,), keep, dims="pos d_model", layers=(1,)) for hook in (MLP_OUT, RESID_POST)}
    seen = observe(model, IDS, list(need.values()), interventions=edits)
    x, state = (seen[need[hook]][0, 0, 4] for hook in (MLP_OUT, RESID_POST))
    part = FlowRoutePart(layer=1, pos=4, target="#5").run(model, IDS, interventions=edits)
    assert float(part["target_logit"]) == float(logit_contributions(model.readout, x, state)[5])
    assert abs(float(part["target_logit"]) - float(flow(model, layer=1, pos=4, target="#5")["target_logit"])) > 1e-4
    shares = FlowRouteNeurons(layer=1, pos=4).run(model, IDS, interventions=edits)["neuron_share"]
    np.testing.assert_array_equal(part["neuron_share"], shares)


def test_the_strongest_neurons_come_first_with_their_tokens(model):
    result = flow(model, layer=0)
    shares = result["neuron_share"].values
    assert len(shares) == 20 and (shares[:-1] >= shares[1:]).all() and shares[0] > 0
    assert result["neuron_text"].shape == (20, 5)


def of_layer(model, view, **params):
    """A view of one layer from the whole pass, and from the state in front of its layer: they must be the same."""
    analysis = view.analysis(**params)
    whole = analysis.run(model, IDS)
    layer = layer_of(analysis.needs(model, tokenise(model, IDS)))
    states = states_of(observe(model, [tokenise(model, IDS)], [RESID], positions="none"))
    xr.testing.assert_allclose(slice_of(analysis, model, states), whole, atol=1e-5)
    assert layer in range(model.sizes.n_layers)
    return whole


def test_maps_of_a_head_are_its_pattern_and_its_shares(model):
    maps = of_layer(model, one_layer.HEAD, layer=1, head=3)
    seen = observe(model, IDS, [need := Need((PATTERN,), keep, dims="head query key", layers=(1,))])
    torch.testing.assert_close(torch.tensor(maps["pattern"].values), seen[need][0, 0, 3])
    edges = FlowRoutes(min_share=0.0, min_coverage=1.0).run(model, IDS)
    mine = edges.isel(edge=(edges["edge_layer"].values == 1) & (edges["edge_head"].values == 3))
    expected = np.zeros((8, 8), np.float32)
    expected[mine["edge_query"].values, mine["edge_key"].values] = mine["weight"].values
    np.testing.assert_allclose(maps["share"], expected, atol=1e-6)
    assert maps["share"].max() > 0
    figure = one_layer.head_figure(maps)
    assert [trace.xaxis for trace in figure.data] == [None, "x2"] and "attention" in figure.layout.xaxis.title.text
    np.testing.assert_allclose(figure.data[1].customdata, np.where(np.tri(8) > 0, maps["share"], np.nan), atol=1e-6)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_node_shows_the_lens_of_its_state(model, depth):
    found = of_layer(model, one_layer.NODE, depth=depth, pos=5)
    lens = LogitLens(positions="all", top_k=10).run(model, IDS).sel(depth=depth, pos=5)
    assert found["text"].values.tolist() == lens["top_text"].values.tolist()
    np.testing.assert_allclose(found["probability"], lens["top_prob"], atol=1e-6)
    assert f"depth {depth}" in one_layer.node_figure(found).layout.title.text


def test_neurons_of_an_mlp_are_shown_with_what_they_promote(model):
    found = of_layer(model, one_layer.NEURONS, layer=1, pos=4)
    strongest = int(found["neuron"].values[0])
    alone = flow(model, layer=1, pos=4, neuron=strongest)
    assert found["neuron_text"].values[0].tolist() == alone["promoted_text"].values[:5].tolist()
    drawn = one_layer.neurons_figure(found)
    assert len(drawn.layout.annotations) == 20
    assert found["neuron_text"].values[0][0] in drawn.data[0].hovertext[0]


def test_what_follows_a_click():
    routes = FlowRoutes(p=2)
    names = lambda **selection: [(view.name, analysis) for view, analysis in follow(routes, selection)]
    edge = {"layer": 3, "head": 1, "query": 5, "key": 2, "pos": 5, "depth": 4}
    assert names(**edge, part="attention") == [("flow-route-head", FlowRouteHead(layer=3, head=1, p=2))]
    assert names(**edge, part="mlp") == [("flow-route-neurons", FlowRouteNeurons(layer=3, pos=5))]
    assert names(**edge) == names(**edge, part="resid_mlp") == [("flow-route-node", FlowRouteNode(depth=4, pos=5))]
    assert names(layer=3) == []


@pytest.mark.parametrize(
    "analysis",
    [
        FlowRouteHead(head=9),
        FlowRouteHead(layer=2),
        FlowRouteNode(depth=3),
        FlowRouteNode(pos=8),
        FlowRouteNeurons(pos=8),
    ],
)
def test_what_is_not_there_is_refused(analysis):
    with pytest.raises(InputError, match="from 0 to"):
        analysis.run(tiny_model("llama"), IDS)


def test_promoted_tokens_are_those_whose_logit_falls_most_without_the_part():
    """At the last layer nothing comes between: taking the MLP's output away lowers the promoted logits by its share."""
    model = tiny_model("llama")
    result = flow(model, layer=1)
    best = int(str(result["promoted_text"].values[0])[1:])
    assert float(result["promoted_logit"][0]) == pytest.approx(
        float(flow(model, layer=1, target=f"#{best}")["target_logit"]), abs=1e-6
    )
    assert (result["promoted_logit"].values[:-1] >= result["promoted_logit"].values[1:]).all()
    assert float(result["suppressed_logit"][0]) < float(result["promoted_logit"][-1])


@pytest.mark.parametrize(
    "part", [{"layer": 2}, {"layer": 0, "pos": 8}, {"layer": 0, "head": 4}, {"layer": 0, "neuron": 64}]
)
def test_parts_that_are_not_there_are_refused(part):
    with pytest.raises(InputError, match="from 0 to"):
        flow(tiny_model("llama"), **part)


def test_an_edge_needs_its_head():
    with pytest.raises(InputError, match="without a head"):
        flow(tiny_model("llama"), layer=0, key=1)


@pytest.mark.parametrize("pos", [77, -77])
def test_a_position_that_is_not_there_is_named_as_it_was_given(pos):
    """-77 was called -67: counted from the end before it was looked at."""
    with pytest.raises(InputError, match=f"position {pos};"):
        flow(tiny_model("llama"), layer=1, pos=pos)
