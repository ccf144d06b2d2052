"""Whatever a browser sends: an answer or one sentence, never a traceback."""

import copy
import json
import math
import time
import zlib

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import make_app
from tests.apps.explorer.tiny_browser import TinyBrowser
from tests.long_run import examples

MODEL = "toy-induction"
VIEWS = ("logit-lens", "induction-on-prompt", "induction-heads", "flow-routes", "head-table", "causal-check")
RUN = {
    "name": "one", "models": [{"name": MODEL}], "prompts": [{"ids": [[3, 7, 9, 5, 3, 7], [4, 4, 4]]}],
    "analyses": [{"name": "induction-on-prompt"}],
}  # fmt: skip
SLOW = 60.0  # seconds: a limit for loaded machines


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    from probes import CATALOG
    from workbench import batch

    runs = tmp_path_factory.mktemp("runs")
    batch.run(RUN, runs / "one", catalog=CATALOG)
    engine = Engine(Settings(models=(MODEL, "toy-copy"), runs=runs), [CATALOG.view(name) for name in VIEWS])
    assert engine.hosted(MODEL).loading.finished.wait(120)
    made = make_app(engine)
    made.server.config["PROPAGATE_EXCEPTIONS"] = False  # as it is served
    yield made
    engine.close()


@pytest.fixture(scope="module")
def visit(app):
    """A whole visit: everything that can be pressed was pressed, and every request of it was answered."""
    page = TinyBrowser(app.server.test_client())
    page.put("poll", 1, "n_intervals")
    look(page)
    page.put("go", {"text": "3 7 9 5 3 7 9", "clicks": 1})
    page.fire("go")
    for _ in range(600):
        look(page)
        if page.get("shown") and page.get("idle"):
            break
        time.sleep(0.2)
    assert page.get("shown")["tokens"][:2] == ["#3", "#7"]
    for name in ("shown", "done", "selection", "params", "display", "notices", "edits"):
        page.fire(name)
    for name in (*VIEWS, "surprisal", "attention"):
        page.put("view", {"name": name, "figure": 0})
        for store in ("view", "drawn", "rested"):
            if store != "view":
                page.put(store, f"{name} 0 ok")
            page.fire(store)
    press(page)
    return page


def look(page):
    page.put("poll", page.get("poll", "n_intervals") + 1, "n_intervals")
    return page.fire("poll", "n_intervals")


def press(page):
    """Controls, buttons, exports, a link, a comparison."""
    for control, value in (("example", "3 7 9 5 3 7"), ("any-model", "toy-nowhere")):
        page.put(control, value, "value")
        page.fire(control, "value")
    page.fire("notices")  # the last name is refused
    page.put("selection", {"layer": 1, "head": 0, "pos": 5, "query": 5, "key": 2, "depth": 2})
    page.fire("selection")
    page.put("view", {"name": "logit-lens", "figure": 0})
    claims = page.buttons("check")
    assert claims and page.buttons("edit")
    presses = {
        "sheet": {"clicks": 1, "sheet": "model"},
        "checked": {"clicks": 1, "check": claims[0]}, "dismissed": {"clicks": 2, "dismiss": page.buttons("dismiss")[0]},
        "typed": {"type": "param", "entry": "logit-lens", "name": "top_k", "value": 4},
        "moved": {"type": "display", "entry": "flow-routes", "name": "threshold", "control": "slider", "value": 0.1},
        "wanted": {"logit-lens": "a sign", "head-table": ""},
        "pins-asked": {"texts": ["3 7 9 5 3 7 9", "3 7 3"], "view": {"name": "induction-on-prompt", "figure": 0},
                       "aligned": "last", "sign": "a", "at": 1.5},
    }  # fmt: skip
    for button in ("edit", "restore"):
        for text in page.buttons(button):
            page.put("edited", {"clicks": 3, button: text})
            page.fire("edited")
        page.fire("edits")
    for store, value in presses.items():
        page.put(store, value)
        page.fire(store)
    step = {
        "link": {"text": "3 7 3", "model": MODEL, "view": {"name": "logit-lens", "figure": 0}},
        "at": 1.5,
        "said": "a",
    }
    page.put("visit-take", {"clicks": 1, "steps": [step]})
    page.fire("visit-take")
    for button in ("about", "card-open"):
        page.put(button, 1, "n_clicks")
        page.fire(button, "n_clicks")
    for kind in ("html", "nc", "csv", "py"):
        page.put("take", {"kind": kind, "clicks": 1})
        page.fire("take")
    link = {"text": "3 7 3", "model": MODEL, "view": {"name": "logit-lens", "figure": 0}, "edits": ["L1H0 mean"],
            "select": {"pos": 1}, "params": {"logit-lens": {"top_k": 3}}, "display": {}, "other": "", "weights": "",
            "otherModel": "", "compare": "difference", "chat": None}  # fmt: skip
    page.put("link", link)
    page.fire("link")
    page.fire("params")
    for _ in range(100):
        look(page)
        if page.get("shown-b"):
            break
        time.sleep(0.2)
    for store in ("shown-b", "compare-mode"):
        page.fire(store, "value" if store == "compare-mode" else "data")
    page.put("swapped", {"depth": 1, "pos": 1, "origin": 0, "clicks": 1.5})
    page.fire("swapped")
    page.put("continue", 1, "n_clicks")
    page.fire("continue", "n_clicks")
    page.put("card-open", 1, "n_clicks")
    page.fire("card-open", "n_clicks")
    page.put("started", {"clicks": 1, "start": "causal-check"})
    page.fire("started")
    page.put("stopped", {"clicks": 2, "cancel": "none"})
    page.fire("stopped")
    look_at_runs(page)


def look_at_runs(page):
    """The panel of batches: its list, every part of it, and a prompt that is opened."""
    page.put("batches-open", 1, "n_clicks")
    page.fire("batches-open", "n_clicks")
    page.put("batch", {"clicks": 1, "batch": "one"})
    page.fire("batch")
    page.put("batch-asked", {"clicks": 2, "halt": "one"})
    page.fire("batch-asked")
    page.fire("batch-news")
    for part in ("results", "failures", "prompts"):
        page.put("batch-part", part, "value")
        page.fire("batch-part", "value")
    for control, value in (("batch-x", "n"), ("batch-y", "induction-on-prompt.mass mean")):
        page.put(control, value, "value")
        page.fire(control, "value")
    page.put("batch-table", [{"row": 1, "text": "3 7"}], "selectedRows")
    page.fire("batch-table", "selectedRows")
    page.put("batch-scatter", {"points": [{"customdata": 0, "x": 1.5}]}, "clickData")
    page.fire("batch-scatter", "clickData")


def test_a_whole_visit_calls_every_callback(visit):
    called = {body["output"] for body in visit.calls}
    missed = {callback["output"] for callback in visit.callbacks} - called
    assert not missed, "\n".join(missed)


def test_the_sheet_of_the_model_comes_with_one_request(visit):
    visit.put("sheet", {"clicks": 9, "sheet": "model"})
    wrote = visit.fire("sheet")
    assert wrote["card.opened"] is True and wrote["card.title"].endswith(MODEL)
    assert "every state is finite" in json.dumps(wrote["card.children"])
    assert {*visit.buttons("sheet")} == {"model"} and len(visit.buttons("sheet")) >= 2  # among the rooms, and the name


# What is put in the place of any value.
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=True), st.text(max_size=20),
    st.sampled_from(["", "²", "9" * 5000, "x" * 100_000, "L99999H0", "../../etc/passwd", "\ud800", "\x00", "nan"]),
    st.sampled_from([[], {}, [[]], [None] * 50, {"name": "nope"}, {"id": 3}, [1, "a", {}], {"": {"": {}}}]),
    st.integers(1, 300).map(lambda depth: json.loads("[" * depth + "]" * depth)),
)  # fmt: skip


def places(value, path=()):
    """The path of every value inside of one."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in list(parts)[:40]:
        yield from places(part, (*path, name))


def values_of(body):
    """The path of the value of every input and state."""
    for part in ("inputs", "state"):
        for i, slot in enumerate(body.get(part, [])):
            many = enumerate(slot) if isinstance(slot, list) else [(None, slot)]
            yield from ((part, i, *(() if j is None else (j,)), "value") for j, one in many if "value" in one)


def inside(body, path):
    """What stands at a path."""
    for name in path:
        body = body[name]
    return body


def changed(body, path, junk, drop):
    """A copy with another value at a path, or without it."""
    if not path:
        return junk
    body = copy.deepcopy(body)
    holder = body
    for name in path[:-1]:
        holder = holder[name]
    if drop and isinstance(holder, dict):
        holder.pop(path[-1])
    elif drop:
        del holder[path[-1]]
    else:
        holder[path[-1]] = junk
    return body


def is_call(body):
    """Whether values can still be found in a request."""
    if not isinstance(body, dict) or not all(isinstance(body.get(part, []), list) for part in ("inputs", "state")):
        return False
    slots = [slot for part in ("inputs", "state") for slot in body.get(part, [])]
    return all(isinstance(one, dict) for slot in slots for one in (slot if isinstance(slot, list) else [slot]))


def distinct(calls):
    """The last request of every callback."""
    return list({body["output"]: body for body in calls}.values())


def check(page, body):
    """Answered in time: what was asked for, or one sentence."""
    started = time.monotonic()
    answer = page.client.post("/_dash-update-component", data=json.dumps(body), content_type="application/json")
    assert answer.status_code < 500, (answer.status_code, answer.text[:500], str(body)[:1000])
    assert time.monotonic() - started < SLOW
    if answer.status_code == 400:
        assert answer.text.startswith("Got ") and "\n" not in answer.text and len(answer.text) < 1000
        assert answer.mimetype == "text/plain" and "Traceback" not in answer.text
    return answer


@seed(0)
@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_no_changed_request_breaks_the_server(visit, data):
    body = data.draw(st.sampled_from(distinct(visit.calls)), label="call")
    for _ in range(data.draw(st.integers(1, 3))):
        start = ()
        if isinstance(body, dict) and data.draw(st.integers(0, 3)) and (values := list(values_of(body))):
            start = data.draw(st.sampled_from(values), label="value")  # mostly what it holds, else what it is
        path = data.draw(st.sampled_from(list(places(inside(body, start), start))), label="path")
        body = changed(body, path, data.draw(JUNK, label="junk"), data.draw(st.booleans()))
        if not is_call(body):
            break
    check(visit, body)


def others(calls):
    """What a visit sent in each store, at any time: an old tab sends what was right once."""
    found = {}
    for body in calls:
        for path in values_of(body):
            slot, value = inside(body, path[:-1]), inside(body, path)
            found.setdefault(str(slot["id"]), {})[json.dumps(value)] = value
    return {store: list(values.values()) for store, values in found.items()}


def alike(value, words):
    """Strategies for another value of the same kind: each would be right on another page, model or prompt."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int | float):
        return st.sampled_from([0, 1, 2, 3, 7, 95, 1000, -1, 10**9, value + 1, value + 0.5])
    if isinstance(value, str):
        return st.sampled_from(words)
    if isinstance(value, list) and value:
        return st.sampled_from([value[::-1], value[:-1], value[1:], value * 2, value + value[-1:]])
    return st.just(value)


@seed(0)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_what_would_be_right_elsewhere_breaks_nothing(visit, data):
    """Stores of other moments beside each other, and names and numbers of another view, model and prompt."""
    known, body = others(visit.calls), copy.deepcopy(data.draw(st.sampled_from(distinct(visit.calls)), label="call"))
    words = sorted({part for values in known.values() for value in values for part in texts_in(value)})
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(list(values_of(body))), label="value")
        slot = inside(body, path[:-1])
        if data.draw(st.booleans()):
            slot["value"] = copy.deepcopy(data.draw(st.sampled_from(known[str(slot["id"])]), label="of another moment"))
            continue
        place = data.draw(st.sampled_from(list(places(slot["value"]))), label="place")
        slot["value"] = changed(slot["value"], place, data.draw(alike(inside(slot["value"], place), words)), False)
    check(visit, body)


def texts_in(value):
    """Short texts inside a value, names of fields among them."""
    if isinstance(value, str):
        return [value] if len(value) < 100 else []
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in texts_in(part)]


OTHER_KINDS = (None, -1, "x", [], {}, {"x": [1]})
_ALL = examples(1) > 1  # a long run was asked for


@pytest.mark.parametrize("junk", OTHER_KINDS, ids=repr)
def test_no_value_of_another_kind_breaks_the_server(visit, junk):
    """Every place of every request meets two of the kinds here, and all of them in a long run (`make fuzz`)."""
    n = OTHER_KINDS.index(junk)
    for body in distinct(visit.calls):
        for start in values_of(body):
            for path in places(inside(body, start), start):
                near = len(path) <= len(start) + 2 and all(k < 3 for k in path[len(start) :] if k in range(50))
                if near and (_ALL or zlib.crc32(f"{body['output']} {path}".encode()) % 3 == n % 3):
                    check(visit, changed(body, path, junk, False))


def test_honest_requests_are_answered_after_all_that(visit):
    for body in distinct(visit.calls):
        assert check(visit, body).status_code in (200, 204)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '"x"', "null", "[" * 100_000, '{"output": "nope.data"}', '{"output": ["a"]}', "\xff", "NaN",
     '{"a": ' + "9" * 5000 + "}", '{"output": "..selection.data.."}'],
)  # fmt: skip
def test_what_is_no_call_is_one_sentence(app, text):
    for kind in ("application/json", "text/plain"):
        answer = app.server.test_client().post("/_dash-update-component", data=text, content_type=kind)
        assert answer.status_code == 400 and answer.text.startswith("Got "), answer.text


@pytest.mark.parametrize("path", ["os/os.py", "dash/nope.js", "dash/../../x"])
def test_scripts_that_are_not_ours_are_not_there(app, path):
    answer = app.server.test_client().get(f"/_dash-component-suites/{path}")
    assert answer.status_code == 404 and "Traceback" not in answer.text


STORES = [
    ("view", {"name": "nope", "figure": 0}, "view.name"),
    ("view", {"name": "logit-lens", "figure": 99}, "figures and tables"),
    ("view", {"figure": 0}, "view.name"),
    ("view", None, "view"),
    ("shown", {"id": "x"}, "shown.model"),
    ("shown", [], "shown"),
    ("selection", 3, "small mapping"),
    ("display", {"flow-routes": 3}, "display"),
    ("session", "x" * 65, "session"),
]


@pytest.mark.parametrize(("store", "value", "said"), STORES)
def test_a_store_of_another_kind_is_named(visit, store, value, said):
    callbacks = [c for c in visit.callbacks if "details.children" in c["output"]]
    body = copy.deepcopy(visit.body(callbacks[0], ["rested.data"]))
    for place in (*body["inputs"], *body["state"]):
        if place["id"] == store:
            place["value"] = value
    answer = check(visit, body)
    assert answer.status_code == 400 and said in answer.text, answer.text


def test_an_unknown_model_or_export_is_refused(visit):
    for store, name, change in (("shown", "details.children", "model"), ("take", "code.children", "kind")):
        (callback,) = (c for c in visit.callbacks if name in c["output"])
        body = copy.deepcopy(visit.body(callback, []))
        for place in (*body["inputs"], *body["state"]):
            if place["id"] == store:
                place["value"] = {**place["value"], change: "exe"}
        assert "'exe'" in check(visit, body).text


def test_numbers_that_are_none_are_refused(visit):
    body = copy.deepcopy(visit.calls[0])
    for number in (math.nan, math.inf, 10**40):
        body["inputs"][0]["value"] = number
        assert check(visit, body).status_code == 400


def test_what_a_user_types_wrongly_is_said_on_the_page(visit):
    for text in ("²", "9" * 5000, "hello", "", "3 " * 100_001):
        visit.put("prompt", text, "value")
        said = visit.fire("prompt", "value")["prompt-line.children"]
        assert "Got " in str(said)
    visit.put("continue-seed", "9" * 5000, "value")
    visit.put("continue", 2, "n_clicks")
    assert "Got " in str(visit.fire("continue", "n_clicks")["notices.data"][-1])


def test_news_is_no_fault(visit):
    """What of the prompt before is not kept is to be known; nothing went wrong, and it does not look so."""
    visit.put("settled", "another prompt")
    visit.put("params", {"causal-check": {"pos": 3}})
    said = visit.fire("shown")["notices.data"][-1]
    assert said["text"].startswith("Of the prompt before") and said["news"]
    visit.put("continue-seed", "", "value")
    visit.put("continue", 3, "n_clicks")
    wrong = visit.fire("continue", "n_clicks")["notices.data"][-1]
    assert wrong["text"].startswith("Got an empty field") and not wrong["news"]
    visit.put("notices", [said, wrong])
    drawn = visit.fire("notices")["notice-list.children"]
    assert [one["props"]["className"] for one in drawn] == ["notice", "notice news"]  # newest first
