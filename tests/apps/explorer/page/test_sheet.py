"""The model as a page: what stands on it is its card, and opening it costs no pass."""

import pytest

from apps.explorer.callbacks.sheet import model_sheet
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from probes import CATALOG
from tests.apps.explorer.page.test_card import text_of
from workbench import load, model_card


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    names = ("logit-lens", "neurons", "experts")
    settings = Settings(models=("toy-induction",), directory=tmp_path_factory.mktemp("sheets"))
    made = Engine(settings, [CATALOG.view(name) for name in names], load=lambda name, progress: load(name))
    assert made.hosted("toy-induction").loading.finished.wait(60)
    yield made
    made.close()


def test_the_sheet_says_what_the_card_says_and_costs_no_pass(engine, monkeypatch):
    model = engine.hosted("toy-induction").ready
    monkeypatch.setattr(type(model.adapter), "forward", lambda *given: pytest.fail("a pass for a sheet"))
    sheet = model_sheet(engine, "toy-induction")
    said, card = text_of(sheet), model_card(model)
    for words in (*card.facts, *card.facts.values(), f"{card.n_parameters:,} parameters", "d_head", "workbench cache"):
        assert words in said
    for item in model.selfcheck.items:
        assert item.name in said and f"{item.measured:.2g}" in said and f"{item.tolerance:.2g}" in said
    assert "these do not:" in said and "toy-induction, which has neither MLPs nor experts" in said
    opens = {part.__dict__.get("data-turn") for part in sheet._traverse() if not isinstance(part, str)}
    assert {"neurons", "experts"} <= opens and "logit-lens" not in opens


def test_what_is_kept_is_of_the_folder_that_the_page_writes_to(engine):
    assert "Nothing." in text_of(model_sheet(engine, "toy-induction"))
    request = engine.request("toy-induction", "3 7 9 3", {})
    assert engine.submit(request, "me", ["logit-lens"]).finished.wait(60)
    assert str(engine.settings.directory) in text_of(model_sheet(engine, "toy-induction"))


def test_a_model_that_is_not_there_says_so(tmp_path):
    def never(name, progress):
        raise FileNotFoundError("no such model")

    lost = Engine(Settings(models=("m",)), [], load=never)
    assert lost.hosted("m").loading.finished.wait(60)
    assert text_of(model_sheet(lost, "m")).startswith("Got m, which did not load")
    lost.close()
