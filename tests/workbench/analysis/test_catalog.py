"""The catalog: names without importing anything, classes and views when they are looked at, plugins beside them."""

from importlib.metadata import EntryPoint

import pytest

import tests.example_probe as example
from probes import CATALOG
from probes.lens.logit_lens import VIEW, LogitLens
from tests.tiny_models import tiny_model
from workbench.analysis import catalog as cataloguing
from workbench.analysis.catalog import Catalog
from workbench.analysis.run import run
from workbench.analysis.view import View
from workbench.errors import InputError, UnavailableError

OTHER_VIEW = View(example.AttentionEntropy, question="Another way to look at it?")
PATHS = {
    "logit-lens": "probes.lens.logit_lens:LogitLens",
    "attention-entropy": "tests.example_probe:AttentionEntropy",
    "by-view": "tests.example_probe:VIEW",
    "two-paths": "tests.example_probe:AttentionEntropy tests.example_probe:OTHER_VIEW",
    "broken": "no.such.module:Thing",
    "empty": "tests.example_probe:NoSuchThing",
}


@pytest.fixture
def catalog(monkeypatch) -> Catalog:
    monkeypatch.setattr(example, "OTHER_VIEW", OTHER_VIEW, raising=False)
    return Catalog(PATHS)


def test_names_are_had_without_importing(catalog):
    assert catalog.names == tuple(PATHS) and len(catalog) == 6
    assert catalog.module("broken") == "no.such.module" and catalog.module("two-paths") == "tests.example_probe"
    with pytest.raises(ModuleNotFoundError):
        catalog.get("broken")
    with pytest.raises(AttributeError, match="NoSuchThing"):
        catalog.view("empty")


def test_a_name_has_a_class_and_a_view(catalog):
    assert catalog.get("logit-lens") is LogitLens and catalog.view("logit-lens") is VIEW
    for name in ("attention-entropy", "by-view", "two-paths"):
        assert catalog.get(name) is example.AttentionEntropy
    assert catalog.view("attention-entropy") is catalog.view("by-view") is example.VIEW


def test_a_second_path_behind_a_space_names_the_view(catalog):
    assert catalog.view("two-paths") is OTHER_VIEW and catalog.get("two-paths") is example.AttentionEntropy


def test_a_name_between_brackets_is_looked_up(catalog):
    """`CATALOG["logit-lens"]` was a TypeError of tuples."""
    assert catalog["logit-lens"] is LogitLens and catalog[0] is LogitLens
    with pytest.raises(InputError, match="logit-lens"):
        catalog["logit-lense"]


def test_it_is_a_sequence_of_classes():
    catalog = Catalog(dict(list(PATHS.items())[:2]))
    assert list(catalog) == [LogitLens, example.AttentionEntropy] == list(catalog[:]) and catalog[-1] is catalog[1]
    assert catalog.views == (VIEW, example.VIEW)
    found = run(tiny_model("llama"), [5, 6, 7, 8], catalog)
    assert list(found) == ["logit-lens", "attention-entropy"]


@pytest.mark.parametrize(
    ("asked", "offered"),
    [("logit-lense", "logit-lens"), ("entropy", "attention-entropy"), ("LOGIT-LENS", "logit-lens")],
)
def test_an_unknown_name_is_answered_with_the_nearest(catalog, asked, offered):
    for look in (catalog.get, catalog.view, catalog.module):
        with pytest.raises(InputError, match=f"the analysis '{asked}'; expected one of .*{offered}"):
            look(asked)


def test_a_name_like_no_other_is_answered_with_all(catalog):
    with pytest.raises(InputError, match=", ".join(PATHS)):
        catalog.get("zzz")


# --- plugins ----------------------------------------------------------------------------------------------------------


def installed(monkeypatch, *points: tuple[str, str]) -> None:
    made = [EntryPoint(name, value, "workbench.probes") for name, value in points]
    monkeypatch.setattr(cataloguing, "entry_points", lambda group: [p for p in made if p.group == group])


def test_what_packages_offer_joins_behind_ours(monkeypatch):
    installed(
        monkeypatch,
        ("mine", "tests.example_probe:AttentionEntropy"),
        ("viewed", "tests.example_probe:VIEW"),
        ("extra", "tests.example_probe:AttentionEntropy [plots]"),
        ("missing", "not.installed:Thing"),
    )
    joined = CATALOG.with_plugins()
    assert joined.names == (*CATALOG.names, "mine", "viewed", "extra", "missing")  # nothing of them was imported
    for name in ("mine", "viewed", "extra"):
        assert joined.view(name).analysis is example.AttentionEntropy and joined.view(name) is example.VIEW
    assert joined.view("logit-lens") is VIEW and "mine" not in CATALOG.names


def test_without_plugins_it_is_the_same(monkeypatch):
    installed(monkeypatch)
    assert CATALOG.with_plugins().names == CATALOG.names


@pytest.mark.parametrize("points", [["logit-lens"], ["mine", "mine"]], ids=["one of ours", "one of another package"])
def test_a_name_that_is_taken_is_refused(monkeypatch, points):
    installed(monkeypatch, *((name, f"package_{i}.module:Thing") for i, name in enumerate(points)))
    with pytest.raises(UnavailableError, match=f"an installed probe named {points[0]}"):
        CATALOG.with_plugins()
