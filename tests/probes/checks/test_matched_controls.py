"""Matched controls: as loud and as deep; with them the check is calibrated for every kind of unit, else it is not."""

import numpy as np
import pytest
import torch

from probes.checks.matched_controls import FEWEST, atoms, draw_controls, matched_controls
from probes.checks.norms import SILENT, output_norms
from tests.tiny_models import tiny_hf, tiny_model
from workbench.intervene import Ablate, AttentionEdge, AttentionKey, Head, Neurons, Residual
from workbench.loading.pretrained import wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.hooks import ATTN_OUT, PATTERN, V, Z
from workbench.models.prompt import Prompt
from workbench.observation.metrics import make_metric
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run, values_of
from workbench.statistics import monte_carlo_p

PROMPT = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])
LEVELS = (0.02, 0.1, 0.2, 0.5)
# Kind of unit, models, the toy's sizes, tokens of the prompt, every how many-th loud unit is claimed.
KINDS = {
    "heads": (Head, 3, {"n_heads": 128}, 6, 1),
    "neurons": (Neurons, 3, {"n_heads": 4, "d_mlp": 128}, 6, 1),
    "edges": (AttentionEdge, 2, {"n_heads": 48}, 6, 2),
    "keys": (AttentionKey, 2, {"n_heads": 48}, 6, 2),
    "states": (Residual, 5, {"n_heads": 8}, 40, 1),
}


def unequal_toy(seed: int, n_heads: int, d_mlp: int = 0):
    """Random weights; in each layer half of the heads and neurons are ten times louder than the others, and layers
    differ."""
    torch.manual_seed(seed)
    config = ToyConfig(n_layers=3, n_heads=n_heads, d_model=48, d_head=4, d_vocab=48, n_ctx=48, d_mlp=d_mlp)
    module = ToyTransformer(config)
    with torch.no_grad():
        for block, loud in zip(module.blocks, (0.5, 2.0, 1.0), strict=True):
            scale = loud * torch.where(torch.arange(n_heads) % 2 == 0, 1.0, 0.1) * (1 + 0.05 * torch.randn(n_heads))
            block.W_O.mul_(scale[:, None, None] / block.W_O.flatten(1).norm(dim=1)[:, None, None])
            if d_mlp:
                scale = 0.3 * loud * torch.where(torch.arange(d_mlp) % 2 == 0, 1.0, 0.1)
                block.W_out.mul_(scale[:, None] / block.W_out.norm(dim=1, keepdim=True))
    return wrap(module, None, name=f"unequal-{seed}")


def null_claims(kind: type, seed: int, sizes: dict, n_tokens: int, step: int, matched: bool) -> list[float]:
    """p of claims as a descriptive score makes them: about loud units, which matter no more than their like."""
    model = unequal_toy(seed, **sizes)
    prompt = Prompt.ids(torch.randperm(48, generator=torch.manual_seed(seed))[:n_tokens].tolist())
    queries = (n_tokens - 1,) if kind is AttentionEdge else ()
    norms = output_norms(model, [prompt], kind, queries)
    places = np.argwhere(np.isfinite(norms))
    base = base_run(model, prompt)
    metric = make_metric(model, base.tokens, base.logits(model))
    values = values_of(model, base, [[Ablate(unit_at(kind, *place, n_tokens))] for place in places.tolist()], metric)
    effects = np.full(norms.shape, np.nan)
    effects[tuple(places.T)] = values.double().numpy() - base.value(model, metric)
    effects, norms = effects.reshape(3, -1), norms.reshape(3, -1)
    found = []
    for place in places[(places[:, 1] % 2 == 0) | (kind is Residual)][::step]:
        own = int(place[0]), int(np.ravel_multi_index(tuple(place[1:]), values_shape(kind, sizes, n_tokens)))
        controls = draw_controls(norms, [own], matched=matched, seed=own[1])
        if not controls.sets:  # too few as loud: refused, and so no claim
            continue
        others = np.array([effects[one[0]] for one in controls.sets])
        found.append(float(monte_carlo_p(abs(effects[own]), np.abs(others))))
    return found


def unit_at(kind: type, layer: int, *place_and_tokens: int):
    *place, n_tokens = place_and_tokens
    if kind is AttentionEdge:
        return AttentionEdge(layer, place[0], n_tokens - 1, place[2])
    return Neurons(layer, tuple(place)) if kind is Neurons else kind(layer, *place)


def values_shape(kind: type, sizes: dict, n_tokens: int) -> tuple[int, ...]:
    heads = sizes["n_heads"]
    return {
        Head: (heads,),
        Neurons: (sizes.get("d_mlp", 0),),
        AttentionEdge: (heads, 1, n_tokens),
        AttentionKey: (heads, n_tokens),
        Residual: (n_tokens,),
    }[kind]


def excess(p: np.ndarray) -> float:
    """How far P(p <= a) is above a + 3 sigma, at the worst level."""
    return max((p <= a).mean() - a - 3 * np.sqrt(a * (1 - a) / len(p)) for a in LEVELS)


@pytest.mark.parametrize("name", KINDS)
def test_the_check_is_calibrated_over_null_claims(name):
    kind, models, *options = KINDS[name]
    p = np.array([p for seed in range(models) for p in null_claims(kind, seed, *options, matched=True)])
    assert len(p) > 280 and len(set(p)) > 20
    assert excess(p) <= 0


@pytest.mark.parametrize("name", ["heads", "neurons", "edges", "keys"])
def test_without_matching_it_is_not(name):
    kind, _, *options = KINDS[name]
    assert excess(np.array(null_claims(kind, 0, *options, matched=False))) > 0.05


def normal_norms(layers: int, width: int, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0.0, spread, size=(layers, width))


def test_every_control_lies_within_the_caliper_and_none_that_is_nearer_is_left_out():
    norms, own = normal_norms(12, 40), (5, 7)
    controls = draw_controls(norms, [own])
    assert len(controls.sets) == 50 == len(set(controls.sets)) and (own,) not in controls.sets
    chosen = [one[0] for one in controls.sets]
    apart = lambda place: abs(norms[place] - norms[own])
    assert max(map(apart, chosen)) <= np.log(1.5) and controls.window == max(abs(layer - 5) for layer, _ in chosen)
    left = [place for place in np.ndindex(norms.shape) if place != own and place not in chosen]
    near = [place for place in left if apart(place) <= np.log(1.5) and abs(place[0] - 5) < controls.window]
    assert near == []  # what is as loud and nearer in depth comes first
    ratios = [np.exp(norms[place] - norms[own]) for place in chosen]
    assert (controls.low, controls.high) == pytest.approx((min(ratios), max(ratios)))
    assert controls.louder == pytest.approx(1 / np.exp(np.mean(np.log(ratios))))


@pytest.mark.parametrize("caliper", [1.1, 1.5, 3.0])
def test_a_unit_louder_than_all_others_has_no_controls_and_no_directions(caliper):
    """Before, the fifty nearest were taken however quiet they were."""
    norms = normal_norms(6, 30)
    norms[2, 4] = norms.max() + np.log(1.01 * caliper)
    controls = draw_controls(norms, [(2, 4)], caliper=caliper, peers=1000)
    assert controls.kind == "none" and controls.sets == () and controls.fewest == 0
    assert len(controls.peers) == controls.n_others == 179  # the answer without a caliper has them all
    assert np.isnan(controls.louder)


def test_fewer_as_loud_are_fewer_controls_down_to_nineteen():
    norms = np.full((4, 50), 5.0)
    norms[:, :10] = 0.0  # forty are alike: one claimed, 39 controls
    assert len(draw_controls(norms, [(1, 3)]).sets) == 39
    norms[:2, 5:10] = 5.0  # thirty alike
    assert len(draw_controls(norms, [(1, 3)]).sets) == 29
    norms[2:, 5:10] = 5.0
    assert len(draw_controls(norms, [(1, 3)]).sets) == 19 == FEWEST
    norms[0, 0] = 5.0
    assert draw_controls(norms, [(1, 3)]).kind == "none"


def test_directions_stand_in_only_where_the_model_has_few_units():
    few = draw_controls(np.arange(30.0)[:, None], [(15, 0)], peers=100)
    assert few.directions and len(few.peers) == 29 and few.fewest == 0
    alike = draw_controls(np.zeros((30, 1)), [(15, 0)])  # thirty blocks that are all as loud: units, not directions
    assert alike.kind == "matched units" and len(alike.sets) == 29


def test_each_member_of_a_set_has_its_own_caliper():
    norms = normal_norms(30, 9, 0.5) + 5 * (np.arange(9) < 3)
    claim = [(10, 0), (14, 5), (10, 1)]
    controls = draw_controls(norms, claim)
    assert len(set(controls.sets)) == 50 and all(len(set(one)) == 3 for one in controls.sets)
    assert not any(set(one) & set(claim) for one in controls.sets)
    # Two loud and a quiet one, each: a mean of three would also let three middling ones through.
    assert all(sum(head < 3 for _, head in one) == 2 for one in controls.sets)
    assert 1 / 1.5 <= controls.low <= controls.high <= 1.5 + 1e-9
    lonely = draw_controls(norms + 3 * (np.arange(30) == 20)[:, None], [(10, 0), (20, 5)])
    assert lonely.kind == "none" and lonely.scarce == 1 and lonely.fewest < FEWEST


def test_peers_are_all_others_or_a_sample_over_all_norms():
    norms = normal_norms(20, 20)
    all_of_them = draw_controls(norms, [(3, 3)], peers=399)
    assert len(set(all_of_them.peers)) == 399 and (3, 3) not in all_of_them.peers
    some = draw_controls(norms, [(3, 3)], peers=120)
    assert len(set(some.peers)) == 120 and {one[0] for one in some.sets} <= set(some.peers)
    found = np.array([norms[place] for place in some.peers])
    assert found.min() < np.quantile(norms, 0.02) and found.max() > np.quantile(norms, 0.98)
    np.testing.assert_allclose(some.peer_norms, found - norms[3, 3])
    norms[5] = -34.0  # silent: an intervention overwrites what they lead to
    assert not any(layer == 5 for layer, _ in draw_controls(norms, [(3, 3)], peers=399).peers)


def test_what_is_no_control_is_never_drawn():
    norms = normal_norms(6, 40, 0.2)
    norms[:, 30:] = np.nan
    rows = np.arange(40) % 2
    controls = draw_controls(norms, [(2, 4), (3, 7)], rows=rows)
    assert {index % 2 for one in controls.sets for _, index in one} == {0, 1}
    assert all(index < 30 for one in controls.sets for _, index in one)
    assert all(sorted(index % 2 for _, index in one) == [0, 1] for one in controls.sets)  # each for one of its row
    few = np.zeros((2, 3))
    assert draw_controls(few, [(0, 1)]).directions
    few[0, 1] = np.nan  # a state at position 0: no direction is as loud as what is not known
    assert draw_controls(few, [(0, 1)]).kind == "none"


def test_controls_of_every_kind_are_of_that_kind_and_where_they_may_be():
    model = tiny_model("llama", n_layers=4)
    prompt = Prompt.ids(list(range(3, 23)))
    edges = matched_controls(model, [prompt], [AttentionEdge(1, 2, 19, 4), AttentionEdge(2, 0, 9, 9)])
    assert {sorted(e.query for e in one) == [9, 19] for one in edges.sets} == {True}
    assert all(e.key <= e.query for one in edges.sets for e in one)
    keys = matched_controls(model, [prompt], [AttentionKey(1, 2, 0)], last=10)
    assert {type(one[0]) for one in keys.sets} == {AttentionKey} and max(one[0].key for one in keys.sets) <= 10
    states = matched_controls(model, [prompt], [Residual(1, 3)], caliper=3.0)
    assert {type(one[0]) for one in states.sets} == {Residual} and min(one[0].pos for one in states.sets) >= 1
    neurons = matched_controls(model, [prompt], atoms([Neurons(1, (3, 9)), Neurons(2, (4,))]), caliper=4.0)
    assert {len(one) for one in neurons.sets} == {3}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_norms_are_norms_of_what_a_removal_takes_away(kind):
    """Against writing it out: the head's output, one edge of it, and what hiding a key changes in it."""
    model = tiny_model(kind)
    w, seen = model.weights(1), record(model, PROMPT, [Z, PATTERN, V, ATTN_OUT]).values
    write = lambda z: torch.einsum("the,hed->thd", z, w.W_O)
    expected = write(seen[Z, 1])[1:].square().sum(-1).mean(0).sqrt().log()
    np.testing.assert_allclose(output_norms(model, [PROMPT], Head)[1], expected, atol=1e-5)
    edge = seen[PATTERN, 1][2, 7, 3] * write(w.repeated(seen[V, 1], dim=1))[3, 2].norm()
    found = output_norms(model, [PROMPT], AttentionEdge, (7, 4))
    assert found[1, 2, 0, 3] == pytest.approx(float(edge.log()), abs=1e-5) and np.isnan(found[1, 2, 1, 5])
    hidden = record(model, PROMPT, [Z], interventions=[Ablate(AttentionKey(1, 2, 3))]).values[Z, 1]
    moved = (write(hidden) - write(seen[Z, 1]))[1:, 2].square().sum(-1).mean().sqrt().log()
    assert output_norms(model, [PROMPT], AttentionKey)[1, 2, 3] == pytest.approx(float(moved), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gemma3", "olmo2", "glm4"])
def test_behind_a_post_norm_norms_are_of_what_reaches_the_stream(kind):
    """The norm's gain over its own scale, by plain hooks: heads of unlike layers are compared by what they add."""
    hf = tiny_hf(kind)
    with torch.no_grad():  # a layer whose heads are loud in front of the norm, which takes that away again
        hf.model.layers[1].self_attn.o_proj.weight.mul_(50.0)
    model = wrap(hf, None, name=kind)
    seen = {}
    norms = {"gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
             "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
             "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm")}[kind]  # fmt: skip
    for layer, block in enumerate(hf.model.layers):
        parts = {"z": block.self_attn.o_proj, "post": block.mlp.down_proj}
        for name, part in parts.items():
            part.register_forward_hook(lambda m, given, out, at=(name, layer): seen.update({at: (given[0][0], out[0])}))
    with torch.no_grad():
        hf(torch.tensor([list(PROMPT.token_ids)]), use_cache=False)

    def added(name, layer, part):
        """What a part of a sublayer's output becomes behind the norm with its scale as it was: it is linear then."""
        norm = getattr(hf.model.layers[layer], norms[name == "post"])
        whole = seen[name, layer][1]
        return norm(whole) * (part / whole)

    for layer in range(2):
        z, post = seen["z", layer][0], seen["post", layer][0]
        W_O, W_out = hf.model.layers[layer].self_attn.o_proj.weight, hf.model.layers[layer].mlp.down_proj.weight
        head = added("z", layer, z[:, 16:24] @ W_O[:, 16:24].T)[1:].square().sum(-1).mean().sqrt().log()
        assert output_norms(model, [PROMPT], Head)[layer, 2] == pytest.approx(float(head), abs=1e-4)
        neuron = added("post", layer, post[:, 5:6] * W_out[:, 5])[1:].square().sum(-1).mean().sqrt().log()
        assert output_norms(model, [PROMPT], Neurons)[layer, 5] == pytest.approx(float(neuron), abs=1e-4)
    v = record(model, PROMPT, [PATTERN, V]).values
    moved = v[PATTERN, 1][2, 7, 3] * (model.weights(1).repeated(v[V, 1], dim=1)[3, 2] @ model.weights(1).W_O[2])
    edge = added("z", 1, moved.expand(10, -1))[7].norm().log()
    assert output_norms(model, [PROMPT], AttentionEdge, (7, 4))[1, 2, 0, 3] == pytest.approx(float(edge), abs=1e-4)
    both = output_norms(model, [PROMPT], Head).max(axis=1)
    assert abs(both[1] - both[0]) < np.log(5)  # in front of the norm one layer is some fifty times as loud


def test_no_control_set_holds_a_unit_twice():
    """Six members from one pool of thirty: drawn without a look at the others, two in five sets would."""
    norms = np.full((4, 40), 9.0)
    norms[1, :36] = 0.0
    controls = draw_controls(norms, [(1, index) for index in range(6)])
    assert len(controls.sets) == 50 and all(len(set(one)) == 6 for one in controls.sets)


def test_what_an_intervention_has_silenced_is_no_other_unit():
    """Else all that are left would be called a sample of them."""
    norms = np.full((2, 9), 5.0)
    norms[0, 3] = SILENT - 1
    controls = draw_controls(norms, [(1, 4)], peers=100)
    assert len(controls.peers) == controls.n_others == 16 and (0, 3) not in controls.peers
