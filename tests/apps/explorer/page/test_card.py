"""The card of a unit: what stands on it is what the results hold, for that unit and no other."""

import json

import numpy as np
import pytest
import xarray as xr

from apps.explorer.callbacks.card import NOTHING, sheet
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page.card import checks_of, facts, looks_at, neighbours, shares_of, unit_of
from probes import CATALOG
from workbench import load
from workbench.analysis.results import dataset

HEAD = unit_of({"layer": 1, "head": 2})


def scores(**more) -> xr.Dataset:
    values = np.arange(12.0).reshape(3, 4) / 12
    values[0, 0] = np.nan
    share = ("share of attention", (0, 1))
    return dataset(
        None,
        {"layer": range(3), "head": range(4)},
        score=("layer head", values, *share, "the score"),
        score_low=("layer head", values - 0.01, "share of attention", None),
        score_high=("layer head", values + 0.01, "share of attention", None),
        score_null=("layer head", values * 0 + 0.05, *share),
        is_such_a_head=("layer head", values > 0.5, "true or false", (0, 1)),
        of_layer=("layer", np.array([3.0, 1.0, 2.0]), "nats", None, "of the layer"),
        **more,
    )


@pytest.mark.parametrize(
    ("selection", "name", "kind"),
    [
        ({"layer": 18, "head": 6, "pos": 3}, "L18H6", "head"),
        ({"layer": 18, "head": 6, "neuron": 507}, "L18N507", "neuron"),
        ({"layer": 0}, "L0 MLP", "MLP"),
    ],
)
def test_a_unit_is_what_is_selected_the_narrowest_first(selection, name, kind):
    unit = unit_of(selection)
    assert (unit.name, unit.kind) == (name, kind)
    assert unit_of({"pos": 3, "depth": 2}) is None


def test_a_number_stands_with_its_interval_its_null_and_its_place():
    sinks = ("layer head", np.ones((3, 4)), "flag", (0, 1), "is a sink")
    fact, flag = facts("Scores", scores(sinks=sinks), HEAD)
    assert (flag.what, flag.value, flag.rank) == ("is a sink", "yes", 0)
    assert (fact.view, fact.value, fact.rank, fact.of) == ("Scores", "0.5", 6, 11)  # five are larger, one is missing
    assert fact.beside == "95 % 0.49 to 0.51, null 0.05" and "the score" in fact.what
    (of_layer,) = facts("Scores", scores(), unit_of({"layer": 1}))
    assert (of_layer.value, of_layer.rank, of_layer.of) == ("1", 3, 3)
    assert list(facts("Scores", scores(), unit_of({"layer": 0, "head": 0}))) == []  # not applicable
    assert list(facts("Scores", scores(), unit_of({"layer": 7, "head": 0}))) == []


def test_neighbours_are_the_nearest_in_all_scores_each_in_its_own_spread():
    table = scores(loud=("layer head", np.full((3, 4), 1000.0), "norm", None))
    loud = table["loud"].values.copy()
    loud[2, 3], loud[1, 2] = 9000.0, 9001.0  # far from all others in this, however near they are in the score
    near = neighbours(table.assign(loud=(("layer", "head"), loud)), HEAD)
    assert near[0] == "L2H3" and "L1H2" not in near and len(near) == 5


def test_a_head_looks_where_its_row_says():
    pattern = np.tril(np.full((3, 3), 0.005))
    pattern[2] = [0.1, 0.7, 0.2]
    coords = {"query": range(3), "key": range(3), "key_text": ("key", ["<s>", " one", " two"])}
    made = xr.Dataset({"pattern": (("query", "key"), pattern)}, coords=coords)
    assert looks_at(made, 2) == "From token 2 ·two it looks at 1 ·one (70%), 2 ·two (20%), 0 <s> (10%)."
    assert looks_at(made, 5) == ""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    names = ("direct-logit-attribution", "induction-on-prompt", "causal-check")
    made = Engine(
        Settings(models=("toy-induction",), directory=tmp_path_factory.mktemp("cards")),
        [CATALOG.view(name) for name in names],
        load=lambda name, progress: load(name),
    )
    assert made.hosted("toy-induction").loading.finished.wait(60)
    yield made
    made.close()


def text_of(part) -> str:
    if isinstance(part, list | tuple):
        return " ".join(map(text_of, part))
    return part if isinstance(part, str) else text_of(getattr(part, "children", None) or [])


def test_the_card_of_the_planted_head_says_its_share_where_it_looks_and_what_was_checked(engine):
    """L1H0 of the toy copies what followed: the largest part of the prediction, from the token behind the first A."""
    from apps.explorer.callbacks.run import ask
    from apps.explorer.page.news import look, request_of

    text, selection = "14 3 9 27 50 3", {"pos": 5, "query": 5, "layer": 1, "head": 0}
    asked, _ = ask(engine, "me", "toy-induction", text, {})
    assert engine.hosted("toy-induction").worker.get(asked.job).finished.wait(60)
    shown = look(engine, "me", asked, None, {}).shown
    request = request_of(engine, shown)
    title, content = sheet(engine, shown, selection, "me")
    said = text_of(content)
    attribution = engine.found(request, "direct-logit-attribution")
    own = float(attribution["head_attribution"].sel(layer=1, head=0))
    assert title == "head L1H0" and f"{own:+.3g}" in said and shares_of(attribution, unit_of(selection)) in said
    assert "it looks at 2 #9 (100%)" in said and "None yet: whether L1H0 matters is open." in said
    assert "Induction on this prompt" in said

    found = attribution.assign_attrs(provenance=json.dumps({"params": {"units": "L1H0"}}), summary="It matters.")
    other = found.assign_attrs(provenance=json.dumps({"params": {"units": "L1H01"}}), summary="Of another one.")
    for key, result in (("a" * 64, found), ("b" * 64, other)):
        engine.cache.put(key, result, write=False)
        engine.tally.add(request.states, key)
    assert checks_of(engine, request, unit_of(selection)) == ["It matters."]
    assert "It matters." in text_of(sheet(engine, shown, selection, "me")[1])
    assert text_of(sheet(engine, shown, {"pos": 1}, "me")[1]) == NOTHING
