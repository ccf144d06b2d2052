"""A visit as one page: what was seen is in it, what is no longer kept says so, and text is text."""

import json
import re
from urllib.parse import parse_qs

import pytest

from apps.explorer.callbacks.run import ask
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page import views
from apps.explorer.page.parsing import Malformed, parse
from apps.explorer.page.state import Visit
from apps.explorer.page.visit import visit_page
from probes import CATALOG

MODEL, TEXT = "toy-induction", "3 7 9 5 3 7 9"


@pytest.fixture(scope="module")
def engine():
    """Two views of one prompt, computed."""
    made = Engine(Settings(models=(MODEL, "toy-copy")), [CATALOG.view("logit-lens"), CATALOG.view("causal-check")])
    assert made.hosted(MODEL).loading.finished.wait(120)
    for edits in ((), ("L1H0",)):
        asked, error = ask(made, "me", MODEL, TEXT, {}, edits=edits)
        assert not error and made.hosted(MODEL).worker.get(asked.job).finished.wait(120)
    yield made
    made.close()


def step(view="logit-lens", figure=0, **more):
    """A step as the browser keeps it."""
    link = {"text": TEXT, "model": MODEL, "view": {"name": view, "figure": figure}, "weights": "f" * 12, "select": {}}
    told = {name: more.pop(name) for name in ("note", "star", "said", "title") if name in more}
    return {"at": 1e12, "title": "A view", "said": "It says so.", **told, "link": {**link, **more}}


def page_of(engine, *steps):
    visit = parse(Visit, {"steps": list(steps), "clicks": 1}, engine=engine)
    return re.sub(r"<script>.*?</script>", "", visit_page(engine, visit, "me"), count=1, flags=re.DOTALL)


def test_a_step_stands_with_figure_code_and_record(engine):
    page = page_of(engine, step(star=True, note="why"))
    assert "★ A view" in page and "It says so." in page and '<p class="note">why</p>' in page
    assert "plotly-graph-div" in page and "LogitLens(" in page and "Model toy-induction" in page
    record = json.loads(re.search(r"Provenance</summary><pre>(.*?)</pre>", page, re.DOTALL)[1].replace("&#34;", '"'))
    assert record["model"]["name"] == MODEL and record["token_ids"] == [3, 7, 9, 5, 3, 7, 9]


def test_the_code_of_a_step_reads_the_tokens_that_stand_there(engine):
    """Of a long prompt those around the selected token are drawn; the code read the last ones."""
    text = " ".join(str(3 + i % 13) for i in range(40))
    asked, _ = ask(engine, "me", MODEL, text, {})
    assert engine.hosted(MODEL).worker.get(asked.job).finished.wait(120)
    page = page_of(engine, step(text=text, select={"pos": 20}))
    assert re.search("LogitLens\\(positions=(&#39;|&#x27;|')16,17,18", page)


def test_the_order_is_that_of_the_visit_and_the_library_is_there_once(engine):
    visit = parse(Visit, {"steps": [step(title="one"), step(title="two")]}, engine=engine)
    page = visit_page(engine, visit, "me")
    assert page.index("1. one") < page.index("2. two") and page.count("Plotly.newPlot") >= 2
    assert page.count("plotly.js v") == 1


def test_a_step_that_a_library_cannot_draw_costs_itself_alone(engine, monkeypatch):
    """The whole visit, notes and all, was not to be had."""
    drawn, calls = views.drawn, []

    def broken(*given):
        calls.append(given)
        if len(calls) == 2:
            raise ValueError("Invalid element(s)\nof many lines")
        return drawn(*given)

    monkeypatch.setattr(views, "drawn", broken)
    page = page_of(engine, step(title="one", note="mine"), step(title="two"))
    assert "It could not be drawn here. ValueError: Invalid element(s)" in page and "of many lines" not in page
    assert '<p class="note">mine</p>' in page and len(calls) == 2


def test_the_list_of_steps_says_of_which_prompt_they_are(engine):
    """Steps of two prompts stood in one list, with sentences that name positions of either."""
    page = page_of(engine, step(title="one"), step(title="two"), step(title="three", text="5 5 5"))
    listed = page[page.index("<ol>") : page.index("</ol>")]
    assert re.findall("<pre>(.*?)</pre>", listed) == [TEXT, "5 5 5"]
    assert listed.index("5 5 5") > listed.index("two")


def test_what_was_chosen_for_a_step_is_named(engine):
    page = page_of(engine, step(params={"logit-lens": {"top_k": 7}, "causal-check": {"seed": 5}}))
    assert "Model toy-induction; with top_k 7" in page and "seed 5;" not in page


def test_the_link_of_a_step_shows_it_again(engine):
    """It was the page's own state, which nothing opens."""
    given = step(
        params={"logit-lens": {"top_k": 7}}, other="5 6 7", otherModel="toy-copy", edits=["L1H0"], aligned="first"
    )
    page = page_of(engine, given)
    fragment = re.search(r"<pre>#(model=.*?|.*?prompt=.*?)</pre>", page)[1].replace("&amp;", "&")
    read = {name: values[0] for name, values in parse_qs(fragment).items()}
    assert read["prompt"] == TEXT and read["model"] == MODEL and read["other"] == "5 6 7"
    assert read["other-model"] == "toy-copy" and json.loads(read["edits"]) == ["L1H0"]
    assert json.loads(read["params"]) == {"logit-lens": {"top_k": 7}} and json.loads(read["aligned"]) == "first"
    assert json.loads(read["view"])["name"] == "logit-lens" and "broken" not in read


def test_a_difference_is_drawn_as_one(engine):
    page = page_of(engine, step(edits=["L1H0"], compare="difference"))
    assert "changed: L1H0" in page and "plotly-graph-div" in page and "this run minus the intact one" in page


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (step("causal-check"), "Press Start"),
        (step(text="5 5 5"), "one that is kept"),
        (step(model="unheard-of"), "one that this page offers"),
        (step(text="no numbers"), "Got"),
        (step("nothing"), "a step without a view"),
        (step(edits=["L99H99"]), "Got"),
    ],
    ids=["study", "prompt", "model", "text", "view", "edit"],
)
def test_what_cannot_be_drawn_says_why_and_stays(engine, given, words):
    page = page_of(engine, given, step(title="the next"))
    assert "It could not be drawn here." in page and words in page
    assert "2. the next" in page and "plotly-graph-div" in page


def test_text_is_text(engine):
    evil = "<script>alert(1)</script>"
    page = page_of(engine, step(title=evil, said=evil, note=evil, other=evil, text=evil))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_what_is_no_visit_is_refused(engine):
    for given in ({"steps": "all"}, {"steps": [{"said": "x"}]}, {"steps": [step()] * 1001}):
        with pytest.raises(Malformed):
            parse(Visit, given, engine=engine)
