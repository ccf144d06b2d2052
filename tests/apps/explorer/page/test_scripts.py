"""What the scripts of the page repeat of Python is handed to them, or the same by these tests, which run them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from dash import Dash
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from apps.explorer.callbacks import register
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page import components
from apps.explorer.page.alignment import ALIGNED
from apps.explorer.page.batch_state import BatchAsked, Chosen
from apps.explorer.page.constants import constants
from apps.explorer.page.exports import KINDS
from apps.explorer.page.graphs import SELECTED
from apps.explorer.page.layout import page
from apps.explorer.page.parsing import parse
from apps.explorer.page.selection import KEYS, merge
from apps.explorer.page.state import (
    Checked,
    Dismissed,
    Edited,
    Link,
    Pressed,
    SheetAsked,
    Shown,
    Sizes,
    Stopped,
)
from apps.explorer.page.stores import PRESSED
from tests.apps.explorer.tiny_browser import TinyBrowser
from workbench.figures.axes import selection as selected
from workbench.figures.axes import selection_shapes, unpack

ASSETS = Path(components.__file__).parent / "assets"
SCRIPTS = {path.name: path.read_text() for path in sorted(ASSETS.glob("*.js"))}

# Enough of a browser for the scripts to be read, and a loop that answers one call a line.
STUB = """
const none = () => {}, vm = require("vm"), readline = require("readline");
class Observer { observe() {} }
const performance = { now: () => 0 };
const page = { dataset: { workbench: %s } };
const window = { addEventListener: none, fetch: none, location: { hash: "" }, history: {
  replaceState: (a, b, hash) => { window.location.hash = hash; } } };
const document = {
  documentElement: page, addEventListener: none, querySelectorAll: () => [], querySelector: () => null,
  createElement: () => ({ getContext: () => ({ measureText: (text) => ({ width: 6 * text.length }) }) }) };
const scope = vm.createContext({ window, document, MutationObserver: Observer, ResizeObserver: Observer,
  IntersectionObserver: Observer, URLSearchParams, URL, console, setTimeout, clearTimeout, performance,
  requestAnimationFrame: none, cancelAnimationFrame: none, WeakMap });
const dash = (window.dash_clientside = { no_update: null });
for (const text of %s) vm.runInContext(text, scope);
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [space, name, given] = JSON.parse(line);
  const answer = dash[space][name](...given);
  console.log(JSON.stringify({ answer: answer === undefined ? null : answer, hash: window.location.hash }));
});
"""


def node():
    """Something that runs scripts."""
    found = shutil.which("node")
    return found or pytest.importorskip("playwright._impl._driver").compute_driver_executable()[0]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """`script(space, name, *arguments)`: what a function of the scripts answers, and the address after it."""
    file = tmp_path_factory.mktemp("scripts") / "run.js"
    file.write_text(STUB % (json.dumps(constants()), json.dumps(list(SCRIPTS.values()))))
    running = subprocess.Popen([node(), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(*asked):
        running.stdin.write(json.dumps([asked[0], asked[1], asked[2:]]) + "\n")
        running.stdin.flush()
        return json.loads(running.stdout.readline())

    yield call
    running.stdin.close()
    assert running.wait(30) == 0


NUMBERS = st.integers(0, 6)
CHOSEN = st.dictionaries(st.sampled_from(KEYS), NUMBERS, max_size=5).flatmap(
    lambda found: st.sampled_from([found, {**found, "part": "mlp"}])
)
PROVE = settings(max_examples=200, deadline=None, database=None)


@seed(0)
@PROVE
@given(before=CHOSEN, chosen=CHOSEN)
def test_a_click_is_merged_as_in_python(script, before, chosen):
    assert script("spine", "merge", before, chosen)["answer"] == merge(before, chosen)


AXES = st.lists(st.sampled_from([0, 1, 2, 3.5, 5, 8, 13]), min_size=1, max_size=5, unique=True)


@st.composite
def metas(draw):
    """The meta of a figure."""
    meta = {"axes": {}}
    for name, dim in zip("xy", draw(st.permutations(["pos", "layer", "depth"])), strict=False):
        values = draw(AXES)
        meta["axes"][name] = dim
        meta[f"{name}_values"] = values
        if draw(st.booleans()):
            meta[f"{name}_at"] = sorted(draw(st.lists(st.floats(0, 9, width=16), min_size=len(values),
                                                      max_size=len(values), unique=True)))  # fmt: skip
            if draw(st.booleans()):
                meta[f"{name}_cell"] = draw(st.sampled_from([1, 0.5]))
    return meta


@seed(0)
@PROVE
@given(meta=metas(), selection=st.dictionaries(st.sampled_from(["pos", "layer", "depth"]), st.sampled_from([0, 1, 5])))
def test_a_selection_is_drawn_as_in_python(script, meta, selection):
    drawn = script("spine", "shapes", meta, selection)["answer"]
    assert [shape.pop("name") for shape in drawn] == ["selected"] * len(drawn)
    expected = selection_shapes(meta, selection, SELECTED)
    assert len(drawn) == len(expected)
    for one, other in zip(drawn, expected, strict=True):
        assert one == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in other.items()}


@seed(0)
@PROVE
@given(meta=metas(), x=st.sampled_from([0, 1.2, 3.9]), y=st.sampled_from([None, 0, 2.2]))
def test_a_clicked_point_is_read_as_in_python(script, meta, x, y):
    point = {"x": x, "y": y, "curveNumber": 0}
    assert script("spine", "read", meta, point)["answer"] == selected(meta, point)
    said = {**point, "customdata": {"layer": 1}}
    assert script("spine", "read", meta, said)["answer"] == selected(meta, said) == {"layer": 1}


@seed(0)
@PROVE
@given(sizes=st.lists(st.integers(2, 5), min_size=1, max_size=3), number=st.integers(0, 120))
def test_a_packed_point_is_unpacked_as_in_python(script, sizes, number):
    packed = {"sizes": [[name, size] for name, size in zip(KEYS, sizes, strict=False)], "also": {"part": "mlp"}}
    assert script("spine", "unpack", packed, number)["answer"] == unpack(packed, number)


def test_an_address_says_what_is_shown_and_is_read_back(script):
    edits, params = ("L1H0",), {"logit-lens": {"top_k": 3}}
    sizes, about = Sizes(n_layers=1, n_heads=1), {"params": params, "chat": True, "edits": edits, "weights": "f" * 64}
    run = Shown(id="x", model="m", text="a & b #", tokens=("#3",), sizes=sizes, **about)
    other = run.model_copy(update={"model": "n", "text": "c"})
    view, display = {"name": "logit-lens", "figure": 1}, {"flow-routes": {"start": 2}}
    shown = [one.model_dump(mode="json") for one in (run, other)]
    pins = ["a & b #", "c"]
    address = script("links", "write", *shown, view, {"pos": 1}, "difference", display, pins, "last")["hash"]
    read = script("links", "parse", address)["answer"]
    assert set(read) <= {field.alias or name for name, field in Link.model_fields.items()}
    link = parse(Link, read)
    assert (link.model, link.text, link.params, link.chat, link.edits) == ("m", "a & b #", params, True, edits)
    assert (link.other_model, link.other, link.compare, link.weights) == ("n", "c", "difference", "f" * 12)
    assert link.view.model_dump() == view and link.select == {"pos": 1} and link.display == display
    assert list(link.pins) == pins and link.aligned == "last"
    usual = script("links", "write", *shown, view, {}, "both", display, pins, next(iter(ALIGNED)))["hash"]
    assert "aligned" not in usual and parse(Link, script("links", "parse", usual)["answer"]).aligned == "token"
    assert parse(Link, script("links", "parse", "#prompt=a&params=%7B")["answer"]).broken == "params"


@pytest.fixture(scope="module")
def known():
    """Every id that the page or an answer of the server can hold."""
    engine = Engine(Settings(models=("m",)), [])
    app = Dash("page")
    app.layout = lambda: page(engine.standing, engine.views, ("m",))
    register(app, engine)
    ids = {name for name in TinyBrowser(app.server.test_client()).ids if not name.startswith("{")}
    return ids | {"link-copy", "table", "connection"}  # the last two are made when they are needed


def test_the_scripts_know_only_ids_that_there_are(known):
    for name, text in SCRIPTS.items():
        asked = set(re.findall(r'(?:getElementById|set_props|getApi)\("([^"]+)"', text))
        asked |= set(re.findall(r'querySelector(?:All)?\("#([\w-]+)', text))
        assert asked <= known, (name, asked - known)


def test_the_scripts_know_the_words_of_the_server():
    spine, links = SCRIPTS["spine.js"], SCRIPTS["links.js"]
    stores = {"started": Pressed, "stopped": Stopped, "checked": Checked, "edited": Edited, "dismissed": Dismissed,
              "batch": Chosen, "batch-asked": BatchAsked, "sheet": SheetAsked}  # fmt: skip
    for kind, store in PRESSED.items():
        if store in stores:
            assert kind in stores[store].model_fields
        else:
            assert f"button.dataset.{kind}" in spine and f'set_props("{store}"' in spine + links
    assert "all" in Stopped.model_fields
    pictures = set(re.findall(r'kind !== "(\w+)"', links))
    assert pictures == {"png", "svg"} <= set(KINDS)
    groups = [group["group"] for group in _component("example").data]
    assert groups == re.findall(r'group\.group === "(\w+)"', links)
    assert _component("compare-mode").data == ["both", "difference"]
    style = (ASSETS / "style.css").read_text()
    assert f"--selected: {SELECTED};" in style


def _component(name):
    engine = Engine(Settings(models=("m",)), [])
    whole = page(engine.standing, engine.views, ("m",))
    return next(part for part in whole._traverse() if getattr(part, "id", None) == name)


def test_numbers_of_the_server_stand_in_no_script():
    told = json.loads(constants())
    for name, text in SCRIPTS.items():
        assert told["selected"] not in text and f"interval: {told['poll']}" not in text, name


def test_a_picture_has_its_caption_as_python_draws_it():
    from workbench.figures import caption

    links = SCRIPTS["links.js"]
    assert links.count(f"{caption.LINE} * caption.length") == 4 and f"font-size:{caption._SIZE}px" in links
    assert f"undefined ? {caption._TOP}" in links


@pytest.mark.parametrize(
    ("text", "letters", "lines"),
    [
        ("Attention that the sink receives", 40, ["Attention that the sink receives"]),
        (
            "Attention that the sink receives<br>(T = 6, no BOS)",
            18,
            ["Attention that the", "sink receives (T =", "6, no BOS)"],
        ),
        ("Attention that the<br>sink receives (T = 6)", 60, ["Attention that the sink receives (T = 6)"]),
        ("What writes ' Mary'", 14, ["What writes", "' Mary'"]),
        ("in <b>bold</b> words", 13, ["in <b>bold</b> words"]),  # marks have no width
        ("a&amp;b c", 5, ["a&amp;b c"]),  # nor have names of letters
        ("Donaudampfschiff ahoy", 8, ["Donaudampfschiff", "ahoy"]),  # a word stays whole
        ('<span style="x">a long line of its own</span>', 5, ['<span style="x">a long line of its own</span>']),
    ],
)
def test_a_title_is_broken_where_it_is_wider_than_its_figure(script, text, letters, lines):
    found = script("titles", "fitted", text, 6 * letters, {"size": 13, "family": "sans"})["answer"]
    assert found == lines
    again = script("titles", "fitted", "<br>".join(found), 6 * letters, {"size": 13, "family": "sans"})["answer"]
    assert again == found


# The page's fetch over one that never answers a look, on a clock that goes when it is told to.
HANGS = """
const vm = require("vm"), none = () => {};
let clock = 0, timers = [], asked = [], answers = false, state = 200;
const page = { dataset: { workbench: %s } };
const banner = { hidden: true, setAttribute: none };
const document = { documentElement: page, baseURI: "http://x/", addEventListener: none, querySelectorAll: () => [],
  querySelector: () => null, getElementById: () => banner, createElement: () => banner, body: { appendChild: none } };
const fetch = (place, given) => {
  asked.push(String(place));
  if (answers) return Promise.resolve(new Response(answers, { status: state }));
  const stopped = (stop) => () => stop(new Error("stopped"));
  return new Promise((_, stop) => given.signal && given.signal.addEventListener("abort", stopped(stop)));
};
const window = { addEventListener: none, fetch, dash_clientside: { set_props: none } };
vm.runInContext(%s, vm.createContext({ window, document, URL, Response, AbortController, clearInterval: none,
  setInterval: none, clearTimeout: (timer) => { timers = timers.filter((one) => one !== timer); },
  setTimeout: (act, wait) => { const timer = { act, at: clock + wait }; timers.push(timer); return timer; } }));
const look = { body: JSON.stringify({ changedPropIds: ["poll.n_intervals"] }) };
const go = (body) => window.fetch("http://x/_dash-update-component", { ...look, ...body });
async function waited() {
  const answer = go();
  for (let at = 0; at < 400; at++) {
    clock += 500;
    for (const timer of timers.filter((one) => one.at <= clock)) timer.act();
    await new Promise((done) => setImmediate(done));
    if (!timers.length) break;
  }
  return [(await answer).status, banner.textContent || ""];
}
(async () => {
  const told = [];
  for (let turn = 0; turn < 3; turn++) { const from = clock; told.push([...(await waited()), clock - from]); }
  answers = "{}";
  told.push([(await go()).status, timers.length]);
  answers = "";
  const from = clock;
  told.push([(await waited())[0], clock - from]);
  let is_over = false;
  banner.textContent = "";
  go({ body: "{}" }).then(() => { is_over = true; });
  const said_at = [];
  for (let at = 0; at < 40; at++) {
    clock += 500;
    const due = timers.filter((one) => one.at <= clock);
    timers = timers.filter((one) => one.at > clock);
    for (const timer of due) timer.act();
    await new Promise((done) => setImmediate(done));
    said_at.push(banner.textContent);
  }
  told.push([is_over, timers.length, said_at.filter((text) => !text).length / 2, banner.textContent]);
  for (answers of ["<html>", '{"multi":true,"resp']) {
    banner.textContent = "";
    told.push([(await go()).status, banner.textContent]);
  }
  const said = [];
  for (const [status, output] of [[400, "a.b"], [200, "c.d"], [200, "a.b"]]) {
    [answers, state] = [status === 400 ? "Type it again." : "{}", status];
    banner.textContent = said.length ? banner.textContent : "";
    await go({ body: JSON.stringify({ output }) });
    said.push(banner.textContent);
  }
  console.log(JSON.stringify([...told, said]));
})();
"""


def test_a_look_that_is_never_answered_is_given_up_within_seconds():
    """It ends as one with nothing new, so that what waits for it goes on; a second one in a row is said. A server that
    is slow is waited for longer each time, one that answers makes that forgotten, and no other call is given up: that
    the server stands still is said of it, too. What the server could not read is said until it reads the like."""
    code = HANGS % (json.dumps(constants()), json.dumps(SCRIPTS["connection.js"]))
    done = subprocess.run([node(), "-"], input=code, capture_output=True, text=True, timeout=60)
    first, second, third, answered, again, other, strange, cut, refused = json.loads(done.stdout or done.stderr)
    assert first == [204, "", 5000]
    assert second[0] == 204 and "does not answer" in second[1] and second[2] == 10_000 and third[2] == 20_000
    assert answered == [200, 0] and again == [204, 5000]
    assert other[:2] == [False, 0] and other[2] == pytest.approx(10, abs=1) and "does not answer" in other[3]
    for status, said in (strange, cut):  # which Dash could not read, and would keep the looking up for a minute
        assert status == 204 and "does not answer" in said
    assert refused == ["Type it again.", "Type it again.", ""]


LISTS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.lists(st.text(max_size=3), max_size=2),
    st.lists(st.one_of(st.none(), st.integers(), st.just({})), min_size=1, max_size=2), st.just({"length": 2}),
)  # fmt: skip


@settings(max_examples=60, deadline=None, database=None)
@given(edits=LISTS, pins=LISTS)
def test_steps_of_a_changed_file_can_be_drawn(script, edits, pins):
    """A step that cannot be drawn would stay in the notebook, which then opens no more."""
    link = {"text": "a", "model": "b", "edits": edits, "pins": pins}
    steps = [{"link": link, "at": "x", "title": 5, "said": None, "note": "n", "star": "yes"}, None, 3, {"link": {}}]
    (step,) = script("visit", "read", json.dumps({"kind": "interp-workbench visit", "version": 1, "steps": steps}))[
        "answer"
    ]
    assert step["note"] == "n" and step["title"] == "" and step["star"] is False and step["link"]["text"] == "a"
    for name, given_list in (("edits", edits), ("pins", pins)):
        texts = isinstance(given_list, list) and all(isinstance(one, str) for one in given_list)
        assert step["link"].get(name) == (given_list if texts else None)
