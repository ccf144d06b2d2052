"""Direct logit attribution: shares that add up to the model's own logit, on every way of building a model."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.circuits.direct_logit_attribution import (
    VIEW,
    DirectLogitAttribution,
    _summary,
    bars_figure,
    heads_figure,
    neurons_figure,
    origin_figure,
)
from tests.tiny_models import KINDS, tiny_model
from workbench.analysis.results import dataset
from workbench.errors import InputError
from workbench.intervene import Ablate, FreezeNormScale, Head, Patch
from workbench.loading.pretrained import load
from workbench.models.hooks import LN_FINAL_SCALE, MLP_OUT
from workbench.models.prompt import Prompt
from workbench.observation import observe
from workbench.observation.recording import record

PROMPT = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    """Multi-head and grouped-query, LayerNorm and RMSNorm, tied and untied, biases, parallel blocks, post-norms."""
    return tiny_model(request.param)


@pytest.mark.parametrize("against", ["", "#7"])
def test_shares_sum_to_the_models_own_value(model, against):
    for pos in (-1, 4, 0):
        result = DirectLogitAttribution(target="#31", against=against, pos=pos).run(model, PROMPT)
        logits = observe(model, PROMPT, positions="all").logits[0][pos]
        own = float(logits[31] - (logits[7] if against else 0))
        assert abs(float(result["total"]) - own) < 1e-6
        assert abs(float(result["attribution"].sum()) - own) < 1e-4


def test_a_heads_share_is_what_ablating_it_directly_costs(model):
    """Independent route: in the last layer, with the norm's scale frozen, removing a head removes exactly its share.

    Where an MLP follows, it reacts; so it is held by comparing the state in front of it (neox runs them side by side).
    """
    if model.weights(0).post_attn_gain is not None:
        pytest.skip("a post-norm rescales what remains when a head is removed")
    result = DirectLogitAttribution(target="#31").run(model, PROMPT)
    layer, frozen = model.sizes.n_layers - 1, FreezeNormScale(record(model, PROMPT, [LN_FINAL_SCALE]))

    held = Patch(MLP_OUT, layer, record(model, PROMPT, [MLP_OUT]))
    before = observe(model, PROMPT).logits[0][0, 31]
    for head in range(model.sizes.n_heads):
        after = observe(model, PROMPT, interventions=[Ablate(Head(layer, head)), held, frozen]).logits[0][0, 31]
        share = float(result["head_attribution"].sel(layer=layer, head=head))
        assert abs(float(before - after) - share) < 1e-4


def test_origins_sum_to_heads_and_neurons_to_their_mlp(model):
    result = DirectLogitAttribution(target="#31", against="#7", pos=6, neurons=1).run(model, PROMPT)
    np.testing.assert_allclose(result["origin"].sum("key"), result["head_attribution"], atol=1e-12)
    assert not result["origin"].sel(key=slice(7, None)).any()  # a query sees no later key
    mlp = result["attribution"].where(result["label"] == "L1 MLP", drop=True)
    np.testing.assert_allclose(
        float(result["neuron_attribution"].sum() + result["neuron_bias"]), float(mlp.sum()), atol=1e-4
    )


def test_components_are_labelled(model):
    result = DirectLogitAttribution().run(model, PROMPT)
    sizes = model.sizes
    kinds = result["kind"].values.tolist()
    assert kinds.count("head") == sizes.n_layers * sizes.n_heads and kinds.count("mlp") == sizes.n_layers
    where = int(np.flatnonzero(result["label"].values == "L1H2")[0])
    assert float(result["attribution"][where]) == pytest.approx(float(result["head_attribution"][1, 2]))
    assert result.attrs["target"] == f"#{int(observe(model, PROMPT).logits[0].argmax())}"


def test_the_planted_circuit_is_found():
    """In the hand-made induction circuit one head writes the whole answer, from the token behind the earlier copy."""
    toy = load("toy-induction")
    result = DirectLogitAttribution(target="#27").run(toy, Prompt.ids([3, 9, 27, 50, 3, 9]))
    shares = result["head_attribution"]
    assert float(shares.sel(layer=1, head=0)) == pytest.approx(float(result["total"]), abs=1e-4)
    assert float(abs(shares).sum() - abs(shares.sel(layer=1, head=0))) < 1e-4
    assert int(result["origin"].sel(layer=1, head=0).argmax()) == 2


def test_bad_input_is_refused(model):
    for params in ({"target": "#96"}, {"target": "#3", "against": "#3"}, {"pos": 10}, {"neurons": 2}):
        with pytest.raises(InputError):
            DirectLogitAttribution(**params).run(model, PROMPT)


def test_a_top_token_that_is_also_what_it_is_held_against_is_named(model):
    """As beside another prompt, whose top token is just the wrong answer of the first."""
    top = f"#{int(observe(model, PROMPT).logits[0].argmax())}"
    with pytest.raises(InputError, match=f"'{top}' as the top token"):
        DirectLogitAttribution(against=top).run(model, PROMPT)
    with pytest.raises(InputError, match="'#3' as the target and"):
        DirectLogitAttribution(target="#3", against="#3").run(model, PROMPT)


def test_figures_draw_what_was_asked():
    result = DirectLogitAttribution(target="#31", neurons=0).run(tiny_model("llama"), PROMPT)
    for figure in VIEW.figures:
        assert figure(result).data
    assert heads_figure(result).data[0].z.shape == (2, 4)
    strip = origin_figure(result, {"layer": 1, "head": 2})
    np.testing.assert_allclose(strip.data[0].y, result["origin"].sel(layer=1, head=2))
    assert neurons_figure(result, {}).data


def test_a_bar_selects_its_head_or_mlp():
    result = DirectLogitAttribution().run(tiny_model("gpt2"), PROMPT)
    (trace,) = [trace for trace in bars_figure(result).data if trace.type == "bar"]
    seen = set()
    for chosen in trace.customdata:
        part = result.sel(component=chosen["component"])
        kind, layer, head = (part[name].item() for name in ("kind", "component_layer", "component_head"))
        wanted = {"head": {"layer": layer, "head": head}, "mlp": {"layer": layer, "part": "mlp"}}.get(kind, {})
        assert chosen == {"component": chosen["component"], **wanted}
        seen.add(kind)
    assert {"head", "mlp"} <= seen


def test_a_target_of_several_tokens_offers_its_first(default_model):
    with pytest.raises(InputError, match="first token"):
        DirectLogitAttribution(target=" Saint-Germain").run(default_model, "The capital of France is")
    result = DirectLogitAttribution(target=" Paris", against=" Berlin").run(default_model, "The capital of France is")
    assert abs(float(result["attribution"].sum() - result["total"])) < 1e-4
    assert torch.isfinite(torch.tensor(result["origin"].values)).all()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-9, 9), min_size=1, max_size=6), st.sampled_from(["", " B"]), st.sampled_from([0.0, 30.0]),
    st.integers(0, 6),
)  # fmt: skip
def test_the_sentence_names_the_largest_part_on_either_side(shares, against, soft_cap, n_heads):
    """And of the heads, where a part that is none is larger: their figure has no other."""
    n_heads, total = min(n_heads, len(shares)), sum(shares)
    kinds = ["head"] * n_heads + ["mlp"] * (len(shares) - n_heads)
    labels = [f"L{i}H0" if kind == "head" else f"L{i} MLP" for i, kind in enumerate(kinds)]
    result = dataset(
        coords={"label": ("component", labels), "kind": ("component", kinds)},
        attribution=("component", np.array(shares), "logits", None),
        total=("", total, "logits", None),
    ).assign_attrs(target=" A", against=against, position=3, soft_cap=soft_cap)
    said, found = _summary(result), np.array(shares)
    assert f" is {total:+.3g};" in said and ("before the soft cap" in said) == bool(soft_cap)
    assert said.startswith("The logit of ' A' less that of ' B' at" if against else "The logit of ' A' at")
    for side, value, there in (("for", found.max(), found.max() > 0), ("against", found.min(), found.min() < 0)):
        assert (f"none is {side} it" in said) == (not there)
        if there:
            label, size = re.search(rf"the largest part {side} it is (L\dH0|L\d MLP) with (\S+)", said).groups()
            assert found[labels.index(label)] == value and f"{value:+.3g}" == size.rstrip(",")
            assert size.startswith("+" if side == "for" else "-")
    heads = np.array(shares)[:n_heads]
    largest = {int(np.argmax(shares)), int(np.argmin(shares))}
    own = [heads.max() > 0, heads.min() < 0] if n_heads and max(largest) >= n_heads else [False, False]
    for side, is_said, at in (("for", own[0], np.argmax), ("against", own[1], np.argmin)):
        named = re.search(rf"the most {side} it is (L\dH0) with ([^\s,]+?)[,.]?(?:\s|$)", said)
        assert bool(named) == is_said
        assert not is_said or named.groups() == (labels[at(heads)], f"{heads[at(heads)]:+.3g}")
