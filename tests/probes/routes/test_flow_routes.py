"""Flow routes: the published unit values, conservation, a plain loop, a recursive walk, and a circuit that is known."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

from probes.routes import contributions, extraction
from probes.routes.extraction import Rule, extract, kept_parts, strongest
from probes.routes.flow_routes import FlowRoutes
from probes.routes.strongest_route import strongest_route
from tests.tiny_models import KINDS, tiny_model
from workbench import Need, Prompt, keep, load, observe
from workbench.analysis.results import save
from workbench.errors import InputError, RefusedError
from workbench.kernels import proximity as kernels
from workbench.models.hooks import ATTN_OUT, MLP_OUT, PATTERN, POST_ATTN_SCALE, RESID_MID, RESID_POST, RESID_PRE, V
from workbench.models.model import Sizes

IDS = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7, 31, 64, 12, 90, 45, 3, 18, 77, 3, 18, 52, 7, 31, 9, 9, 60] + [5, 8] * 4)
EVERYTHING = {"min_share": 0.0, "min_coverage": 1.0}


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return tiny_model(request.param, n_layers=3)


@pytest.fixture(scope="module")
def result(model):
    """Every edge with a share above 0 of 32 tokens."""
    return FlowRoutes(**EVERYTHING).run(model, IDS)


@pytest.fixture(scope="module")
def llama():
    return FlowRoutes().run(tiny_model("llama", n_layers=3), IDS)


# --- values -----------------------------------------------------------------------------------------------------------


def shares(parts, target, p):
    found = torch.stack([kernels.part_proximity(torch.tensor(z), torch.tensor(target), p) for z in parts])
    return (found / found.sum()).tolist()


def test_published_values_of_an_mlp_step():
    assert shares([(1.0, 1.0), (0.0, 0.0)], (1.0, 1.0), 1) == pytest.approx([1, 0], abs=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_published_values_of_an_attention_step(compiled):
    """Two heads write (1, 1) and (-1, 0) into (2, 2), the residual (2, 1)."""
    target = torch.tensor([[2.0, 2.0]])
    heads = kernels.proximity(
        torch.ones(2, 1, 1),
        torch.ones(1, 2, 1),
        torch.tensor([[[1.0, 1.0]], [[-1.0, 0.0]]]),
        target,
        p=2,
        compiled=compiled,
    )
    parts = torch.cat([heads.flatten().double(), kernels.part_proximity(torch.tensor([[2.0, 1.0]]), target, 2)])
    assert (parts / parts.sum()).tolist() == pytest.approx([0.43613, 0, 0.56387], abs=1e-5)


def planted(edges, resid):
    """A result of one layer and two tokens whose last row has these edge shares (key 0, then 1)."""
    n = len(edges)
    result = xr.Dataset(
        {
            "edge_query": ("edge", np.ones(n, int)), "edge_key": ("edge", np.arange(n)),
            "edge_head": ("edge", np.zeros(n, int)),
            "weight": ("edge", np.array(edges, float)), "covered": ("edge", np.cumsum([0.0, *edges])[:-1] / sum(edges)),
            "resid_attn": (("layer", "pos"), [[1.0, resid]]), "mlp": (("layer", "pos"), [[0.0, 0.0]]),
            "resid_mlp": (("layer", "pos"), [[1.0, 1.0]]), "edge_layer": ("edge", np.zeros(n, int)),
        },
        {"pos": [0, 1]},
    )  # fmt: skip
    return result.assign_attrs(min_share=0.001, min_coverage=0.95, parallel=0)


@pytest.mark.parametrize(
    ("edges", "resid", "kept", "residual"), [((0.15, 0.05), 0.8, [0.157895], 0.842105), ((0.05, 0.05), 0.9, [], 1.0)]
)
def test_published_values_of_threshold_and_renormalisation(edges, resid, kept, residual):
    graph = extract(planted(edges, resid), threshold=0.1, renormalise=True)
    at_last = graph["edge_query"].values == 1
    of = lambda kind: graph["weight"].values[(graph["kind"].values == kind) & at_last].tolist()
    assert of("attention") == pytest.approx(kept, abs=1e-6) and of("resid_attn") == pytest.approx([residual], abs=1e-6)


def test_a_row_below_the_threshold_keeps_its_largest_part():
    edge = extract(planted((0.3, 0.1), 0.2), threshold=0.5)
    kinds = list(zip(edge["kind"].values, edge["edge_query"].values, edge["edge_key"].values, strict=True))
    assert ("attention", 1, 0) in kinds and ("resid_attn", 1, 1) not in kinds and ("attention", 1, 1) not in kinds
    rest = extract(planted((0.2, 0.1), 0.3), threshold=0.5, renormalise=True)
    assert "attention" not in rest["kind"].values and not rest["weight"].isnull().any()


# --- conservation -----------------------------------------------------------------------------------------------------


def test_parts_and_bias_sum_to_their_targets(result):
    assert float(result["residue"].max()) < 1e-5


def test_shares_of_a_sum_add_up_to_one(result):
    parallel = result.attrs["parallel"]
    single = result["attention"] + result["resid_attn"] + result["bias_attn"] + (result["mlp"] if parallel else 0)
    np.testing.assert_allclose(single, 1, atol=1e-5)
    np.testing.assert_allclose(result["mlp"] + result["resid_mlp"], 1, atol=1e-6)
    summed = np.zeros(result["attention"].shape)
    np.add.at(summed, (result["edge_layer"].values, result["edge_query"].values), result["weight"].values)
    np.testing.assert_allclose(summed, result["attention"], atol=1e-5)


def test_a_dropped_bias_would_show(monkeypatch):
    """The residue is no constant: without b_O it is far from 0 (a negative control)."""
    plain = contributions._Sum.table
    monkeypatch.setattr(contributions._Sum, "table", lambda self, *a: plain(replace(self, bias=0 * self.bias), *a))
    result = FlowRoutes().run(tiny_model("gpt2"), IDS)
    assert float(result["residue"].max()) > 1e-2


# --- against a plain loop ---------------------------------------------------------------------------------------------


def activations(model, hooks):
    needs = {hook: Need((hook,), keep, dims=hook.dims[1:]) for hook in hooks}
    seen = observe(model, IDS, list(needs.values()), positions="none")
    return {hook: seen[need][:, 0].double() for hook, need in needs.items()}


def plain_shares(model, layer, at):
    """Everything at T = 32, part by part in float64: edges [head, query, key], then resid, bias and mlp over query."""
    w = model.weights(layer)
    group = model.sizes.n_heads // model.sizes.n_key_value_heads
    target = (at[RESID_POST] if model.sizes.parallel else at[RESID_MID])[layer]
    closer = lambda z, y: max(0.0, float(y.abs().sum() - (y - z).abs().sum()))
    n, n_heads = len(target), model.sizes.n_heads
    edges, single = np.zeros((n_heads, n, n)), {name: np.zeros(n) for name in ("resid", "bias", "mlp")}
    for query in range(n):
        through = lambda z, i=query: z.double()
        if POST_ATTN_SCALE in at:
            through = lambda z, i=query: z.double() / at[POST_ATTN_SCALE][layer, i] * w.post_attn_gain.double()
        for head in range(n_heads):
            for key in range(query + 1):
                part = at[PATTERN][layer, head, query, key] * at[V][layer, key, head // group] @ w.W_O[head].double()
                edges[head, query, key] = closer(through(part), target[query])
        single["resid"][query] = closer(at[RESID_PRE][layer, query], target[query])
        single["bias"][query] = closer(through(w.b_O), target[query])
        if model.sizes.parallel:
            single["mlp"][query] = closer(at[MLP_OUT][layer, query], target[query])
    whole = edges.sum((0, 2)) + sum(single.values())
    single["resid"][whole == 0], whole[whole == 0] = 1, 1  # no part alone brings anything: left to the residual
    return edges / whole[:, None], {name: value / whole for name, value in single.items()}


def test_the_fast_path_equals_a_plain_loop_over_everything(model, result):
    hooks = [RESID_PRE, PATTERN, V, MLP_OUT, ATTN_OUT, RESID_POST] + ([] if model.sizes.parallel else [RESID_MID])
    if model.weights(0).post_attn_gain is not None:
        hooks.append(POST_ATTN_SCALE)
    at = activations(model, hooks)
    for layer in range(model.sizes.n_layers):
        edges, single = plain_shares(model, layer, at)
        here = result.isel(edge=result["edge_layer"].values == layer)
        found = np.zeros_like(edges)
        found[here["edge_head"].values, here["edge_query"].values, here["edge_key"].values] = here["weight"].values
        np.testing.assert_allclose(found, edges, atol=1e-4)
        np.testing.assert_allclose(result["resid_attn"].values[layer], single["resid"], atol=1e-4)
        np.testing.assert_allclose(result["bias_attn"].values[layer], single["bias"], atol=1e-4)
        if model.sizes.parallel:
            np.testing.assert_allclose(result["mlp"].values[layer], single["mlp"], atol=1e-4)


def test_only_what_may_be_asked_for_is_kept(model, result):
    """With the default floor the kept edges are those above a share of 0.001 or within coverage 0.95, and no others."""
    kept = FlowRoutes().run(model, IDS)
    wanted = (result["weight"].values > 0.001) | (result["covered"].values < 0.95)
    names = ("edge_layer", "edge_query", "edge_key", "edge_head")
    asked = {
        row
        for row, keep_it in zip(zip(*(result[n].values for n in names), strict=True), wanted, strict=True)
        if keep_it
    }
    assert set(zip(*(kept[n].values for n in names), strict=True)) == asked


# --- the graph --------------------------------------------------------------------------------------------------------


def walk(result, keep, kept, start):
    """Reached edges by recursion over nodes, one at a time."""
    edges, seen = set(), set()
    by_row = {}
    for i in np.flatnonzero(keep):
        row = int(result["edge_layer"].values[i]), int(result["edge_query"].values[i])
        by_row.setdefault(row, []).append((int(result["edge_key"].values[i]), int(result["edge_head"].values[i])))

    def visit(depth, pos):
        if (depth, pos) in seen or depth == 0:
            seen.add((depth, pos))
            return
        seen.add((depth, pos))
        layer = depth - 1
        above = [name for name in ("mlp", "resid_mlp") if kept[name][layer, pos]]
        edges.update((name, layer, pos, pos, -1) for name in above)
        if not above:
            return
        for key, head in by_row.get((layer, pos), []):
            edges.add(("attention", layer, pos, key, head))
            visit(layer, key)
        if kept["resid_attn"][layer, pos]:
            edges.add(("resid_attn", layer, pos, pos, -1))
            visit(layer, pos)
        if result.attrs["parallel"] and "mlp" in above:
            visit(layer, pos)

    visit(result.sizes["layer"], start)
    return edges, seen


@pytest.mark.parametrize("settings", [{"coverage": 0.5}, {"threshold": 0.02}, {"threshold": 0.2}])
@pytest.mark.parametrize("start", [7, 31])
def test_the_graph_equals_a_recursive_walk(result, settings, start):
    graph = extract(result.assign_attrs(min_coverage=0.95, min_share=0.001), start=start, **settings)
    keep, kept = kept_parts(result, Rule(**settings))
    edges, seen = walk(result, keep, kept, start)
    names = ("kind", "edge_layer", "edge_query", "edge_key", "edge_head")
    found = list(zip(*(graph[name].values.tolist() for name in names), strict=True))
    assert len(found) == len(set(found)) and set(found) == edges
    assert {(d, p) for d, p in zip(*np.nonzero(graph["reached"].values), strict=True)} == seen


@pytest.mark.parametrize("most", [1, 10, 40])
def test_what_is_drawn_is_what_the_start_reaches_by_parts_above_one_share(result, most):
    """The share is the smallest that draws no more edges than asked; heads between two tokens count as one."""
    rule, start = {"coverage": 0.8}, 31
    shown = strongest(graph := extract(result, start=start, **rule), most)
    keep, kept = kept_parts(result, Rule(**rule))
    pair = list(zip(*(result[name].values.tolist() for name in ("edge_layer", "edge_query", "edge_key")), strict=True))
    total = Counter()
    for index in np.flatnonzero(keep):
        total[pair[index]] += float(result["weight"].values[index])

    def above(share):
        strong = keep & np.array([total[place] > share for place in pair])
        edges, _ = walk(result, strong, kept | {"mlp": kept["mlp"] & (result["mlp"].values > share)}, start)
        return edges, len({edge[1:4] for edge in edges if edge[0] == "attention"})

    names = ("kind", "edge_layer", "edge_query", "edge_key", "edge_head")
    table = lambda g: set(zip(*(g[name].values.tolist() for name in names), strict=True))
    assert table(shown) < table(graph)
    assert table(shown) == above(shown.attrs["above"])[0]
    assert shown.attrs["drawn"] == above(shown.attrs["above"])[1] <= most
    levels = sorted({total[edge[1:4]] for edge in table(graph) if edge[0] == "attention"})
    lower = [share for share in levels if share < shown.attrs["above"] - 1e-9]
    assert above(lower[-1] if lower else 0)[1] > most
    whole = strongest(graph, 10**6)
    assert table(whole) == table(graph) and whole.attrs["above"] == 0


def test_coverage_keeps_the_fewest_edges_that_hold_it(result):
    keep, _ = kept_parts(result, Rule(coverage=0.7))
    for layer in range(result.sizes["layer"]):
        for query in (0, 5, 31):
            row = (result["edge_layer"].values == layer) & (result["edge_query"].values == query)
            weights = np.sort(result["weight"].values[row])[::-1].astype(float)
            total = float(result["attention"].values[layer, query])
            fewest = int((np.cumsum(weights) < 0.7 * total - 1e-6).sum()) + 1 if total > 0 else 0
            assert keep[row].sum() == fewest


def test_a_saved_file_that_is_opened_plainly_keeps_integers(llama, tmp_path):
    """What a user of xarray finds who knows nothing of us: `edge_layer` is no coordinate of the dim `layer`."""
    with xr.open_dataset(save(llama, tmp_path / "routes.nc")) as opened:
        for name in ("edge_layer", "edge_query", "edge_key", "edge_head"):
            assert opened[name].dtype == llama[name].dtype == np.int16 and name not in opened.coords
            np.testing.assert_array_equal(opened[name], llama[name])
        assert opened["layer"].dims == ("layer",) and opened["layer"].values.tolist() == [0, 1, 2]


def test_hiding_the_first_position_changes_no_weight(llama):
    whole, hidden = extract(llama), extract(llama, hide_first=True)
    names = ("kind", "edge_layer", "edge_query", "edge_key", "edge_head", "weight")
    table = lambda g: {tuple(row): w for *row, w in zip(*(g[n].values.tolist() for n in names), strict=True)}
    whole, hidden = table(whole), table(hidden)
    assert not any(key == 0 for _, _, _, key, _ in hidden) and any(key == 0 for _, _, _, key, _ in whole)
    assert all(whole[edge] == weight for edge, weight in hidden.items())


def test_renormalised_rows_sum_to_one(result):
    graph = extract(result, coverage=0.6, renormalise=True)
    total = np.zeros((result.sizes["layer"], result.sizes["pos"]))
    kinds = ["attention", "resid_attn"] + (["mlp"] if result.attrs["parallel"] else [])
    of_first = np.isin(graph["kind"].values, kinds)
    np.add.at(
        total, tuple(graph[n].values[of_first] for n in ("edge_layer", "edge_query")), graph["weight"].values[of_first]
    )
    np.testing.assert_allclose(total[total > 0], 1, atol=1e-5)


def test_the_induction_circuit_is_recovered_exactly():
    """... A B ... A -> B: L1H0 reads B where the token before was A, and L0H0 wrote there what that token was. All
    other heads write nothing, so these three edges are the route."""
    model = load("toy-induction")
    tokens = [14, 3, 9, 27, 50, 3]
    graph = extract(FlowRoutes().run(model, tokens), coverage=0.9)
    attention = graph.isel(edge=graph["kind"].values == "attention")
    names = ("edge_layer", "edge_head", "edge_query", "edge_key")
    found = set(zip(*(attention[n].values.tolist() for n in names), strict=True))
    assert found == {(1, 0, 5, 2), (0, 0, 5, 4), (0, 0, 2, 1)}
    assert set(np.flatnonzero(graph["reached"].values[0])) == {1, 2, 4, 5}
    assert int(observe(model, tokens).logits[0][0].argmax()) == 9


def walked(result, passed, kept, start):
    """Every way from another token to the start, one edge at a time: the largest product of shares."""
    parallel = result.attrs["parallel"]
    names = ("resid_attn", "mlp", "resid_mlp")
    part = {name: np.where(kept[name], result[name].values.astype(np.float64), 0.0) for name in names}
    edges = {}
    for edge in np.flatnonzero(passed):
        layer, query, key = (int(result[f"edge_{name}"][edge]) for name in ("layer", "query", "key"))
        if query != key:
            edges.setdefault((layer, query), []).append((key, float(result["weight"][edge])))

    @cache
    def best(depth, pos):
        if depth == 0:
            return float(pos != start)
        at = depth - 1
        after = 1.0 if parallel else part["mlp"][at, pos] + part["resid_mlp"][at, pos]
        stays = part["resid_attn"][at, pos] + (part["mlp"][at, pos] if parallel else 0.0)
        ways = [stays * best(at, pos), *(w * best(at, key) for key, w in edges.get((at, pos), []))]
        return after * max(ways)

    return best(len(part["mlp"]), start)


def test_the_strongest_route_is_that_of_all_ways_and_its_edges_make_it(result):
    """Against a recursive walk; and the edges that it names lead from token to token, upwards, to the start."""
    for start in (31, 12, 5):
        _, keep, kept = extraction._kept(result, Rule(coverage=0.9), start, False)
        _, _, passed = extraction._walk(result, keep, kept, start, result.attrs["parallel"])
        route = strongest_route(result, passed, kept, start)
        assert route.share == pytest.approx(walked(result, passed, kept, start), rel=1e-9)
        layers, queries, keys = (result[f"edge_{name}"].values[list(route.edges)] for name in ("layer", "query", "key"))
        assert passed[list(route.edges)].all() and (np.diff(layers) > 0).all()
        assert queries[-1] == start and (queries[:-1] == keys[1:]).all() and keys[0] != start


def test_the_strongest_route_of_the_planted_circuit_is_said():
    """All of the last token's attention in layer 0 goes to the one before; layer 1 keeps what that brought."""
    said = FlowRoutes().run(load("toy-induction"), [14, 3, 9, 27, 50, 3]).attrs["summary"]
    assert said.startswith(
        "The strongest route to token 5 comes from token 4 #50 by L0H0 to 5 #3 (product of its shares"
    )
    assert "strongest route" not in FlowRoutes().run(tiny_model("llama"), Prompt.ids([5])).attrs["summary"]


# --- bad input --------------------------------------------------------------------------------------------------------


def test_one_token_attends_to_itself(model):
    result = FlowRoutes().run(model, Prompt.ids([7]))
    graph = extract(result)
    assert set(graph["edge_key"].values.tolist()) == {0}
    assert not any(v.isnull().any() for v in result.data_vars.values())


@pytest.mark.parametrize("start", [32, -33])
def test_a_start_outside_the_prompt_is_refused(llama, start):
    with pytest.raises(InputError, match=f"start={start}"):
        extract(llama, start=start)


def test_settings_finer_than_what_was_kept_say_how_to_get_them(llama):
    with pytest.raises(InputError, match=r"min_share=0\.0001"):
        extract(llama, threshold=0.0001)
    with pytest.raises(InputError, match=r"min_coverage=0\.99"):
        extract(llama, coverage=0.99)
    with pytest.raises(InputError, match="one of the two"):
        extract(llama, coverage=0.5, threshold=0.1)


def test_a_prompt_whose_edges_do_not_fit_is_refused_with_the_size():
    class Giant:
        sizes = Sizes(80, 64, 8, 8192, 128, 28672, 128_000, 131_072)

    with pytest.raises(RefusedError, match=r"about \d+ GB"):
        FlowRoutes().needs(Giant(), range(100_000))


# --- beside each other ------------------------------------------------------------------------------------------------


def test_prompts_of_unlike_length_do_not_touch_each_other(model):
    short = Prompt.ids([0, 7, 31, 64, 0, 90, 7])
    (first, *rest) = FlowRoutes().needs(model, range(7))
    alone, beside = observe(model, [short], [first, *rest]), observe(model, [short, IDS], [first, *rest])
    for one, two in zip(alone[first], beside[first], strict=True):
        two = two[0][~two[0][:, 0].isnan()]
        torch.testing.assert_close(one[0], two, atol=1e-4, rtol=0)


def test_l2_is_labelled_as_not_the_papers_norm(llama):
    other = FlowRoutes(p=2).run(tiny_model("llama", n_layers=3), IDS)
    assert "not the paper's" in other["weight"].attrs["units"] and "not" not in llama["weight"].attrs["units"]
    assert abs(float(other["attention"].mean() - llama["attention"].mean())) > 1e-3


def test_the_sentence_counts_one_token_as_one():
    said = FlowRoutes().run(tiny_model("llama"), Prompt.ids([5])).attrs["summary"]
    assert " from 1 token, " in said and "1 tokens" not in said
