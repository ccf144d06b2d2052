"""Every view with a prompt of any length, at any width, in light and in dark: no text is cut or lies on other text, no
panel is empty, there is a sentence, the console is silent, and the page comes to rest."""

import pytest

from tests.apps.explorer.browser.actions import SHOWN
from tests.apps.explorer.browser.conftest import WORDS
from tests.apps.explorer.browser.looks import faults, rest, text_of

pytestmark = pytest.mark.browser

LENGTHS = (1, 6, 40, 300, 1024)  # tokens
WINDOWS = ((1280, 800), (768, 1024), (390, 844))
SCHEMES = ("light", "dark")
SHARES = 2  # of the views, so that each walk takes minutes
# Of each kind of figure one: words in cells, heads, patterns, graphs, bars, lines, a table, a study's form.
SHORT = ("logit-lens", "attention-sinks", "attention", "flow-routes", "direct-logit-attribution", "surprisal",
         "head-table", "attention-knockout", "neurons")  # fmt: skip


@pytest.fixture(scope="module")
def words_page(shared):
    """A page of a tiny model that reads any words."""
    page = shared(f"#model={WORDS}&prompt=Hello")
    rest(page)
    return page


def ask(page, explorer, length: int) -> None:
    """Run a prompt of so many tokens."""
    text = text_of(length, lambda text: len(explorer.engine.tokens(WORDS, text)))
    page.fill("#prompt", text)
    page.press("#prompt", "Control+Enter")
    page.wait_for_function(f"text => {SHOWN} === text", arg=text)
    page.wait_for_function("n => document.querySelectorAll('#tokens [data-pos]').length === n", arg=length)


def see(page, explorer, name: str, figure: int = 0) -> None:
    """Open a view."""
    page.evaluate("seen => dash_clientside.set_props('view', { data: seen })", {"name": name, "figure": figure})
    title = explorer.engine.views[name].title
    page.wait_for_function("t => document.querySelector('#params-title').textContent === t", arg=title)
    rest(page)


def paint(page, scheme: str) -> None:
    """Light or dark."""
    page.evaluate("scheme => dash_clientside.set_props('scheme', { data: scheme })", scheme)
    page.wait_for_selector(f"[data-mantine-color-scheme={scheme}]")
    rest(page)


def resize(page, window: tuple[int, int]) -> None:
    """Another size of the window."""
    page.set_viewport_size({"width": window[0], "height": window[1]})
    rest(page)


def test_views_can_be_read_at_any_size(words_page, explorer, shared):
    """Each view of the short list at one length, one width and in one scheme: all of them are met."""
    page, found = words_page, []
    for at, length in enumerate((1, 40, 300)):
        paint(page, SCHEMES[at % 2])
        ask(page, explorer, length)
        resize(page, WINDOWS[at])
        for name in SHORT[at::3]:
            see(page, explorer, name)
            found += [f"{name} with {length} tokens at {WINDOWS[at][0]}: {fault}" for fault in faults(page)]
    assert not found, "\n".join(found)
    shared.check()


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("length", LENGTHS)
def test_every_view_can_be_read_at_every_size(words_page, explorer, shared, length, scheme, share):
    page, found = words_page, []
    resize(page, WINDOWS[0])
    paint(page, scheme)
    ask(page, explorer, length)
    for name in list(explorer.engine.views)[share::SHARES]:
        view = explorer.engine.views[name]
        for figure in range(max(1, len(view.figures) + len(view.tables))):
            print(name, figure, flush=True)  # the last one is the one that did not come to rest
            see(page, explorer, name, figure)
            if figure and page.text_content("#main-message").strip():
                continue  # what stands in its place was read for the first one
            for window in WINDOWS:
                resize(page, window)
                where = f"{name} {figure} with {length} tokens at {window[0]}, {scheme}"
                found += [f"{where}: {fault}" for fault in faults(page)]
    assert not found, "\n".join(found)
    shared.check()


# What opens a part of the page, what is there then, and what closes it.
PARTS = (
    ("Control+k", ".find li", "Escape"),
    ("#visit-open", ".visit[open] li", "Escape"),
    (".model-name", ".card .pairs", "Escape"),
    ("#card-open", ".card .card-table", "Escape"),
    ("#batches-open", ".batches", "Escape"),
    ("#keys-open", "[role=dialog] table", "Escape"),
    ("#tour", ".tour[open]", "Escape"),
)
STILL = "() => document.getAnimations().every((one) => one.playState !== 'running')"


def axe(page, what: str) -> list[str]:
    """All that axe finds, of any weight."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_function(STILL)
    found = Axe().run(page).response["violations"]
    return [f"{what}: {one['id']} {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_part_can_be_used_by_everybody(words_page, explorer, shared, scheme):
    page, found = words_page, []
    resize(page, WINDOWS[0])
    ask(page, explorer, 6)
    page.evaluate("texts => dash_clientside.set_props('pinned', { data: texts })", ["Hello", "Hello again"])
    see(page, explorer, "logit-lens")
    paint(page, scheme)
    page.wait_for_function("() => document.querySelectorAll('.pin-figure .js-plotly-plot').length === 2")
    found += axe(page, "pinned prompts")
    page.get_by_role("button", name="Unpin all").click()
    see(page, explorer, "attention-knockout")
    found += axe(page, "a study's form")
    page.evaluate("() => dash_clientside.spine.select({ layer: 3, head: 1 })")
    for opener, there, closer in PARTS:
        page.keyboard.press(opener) if opener.startswith("Control") else page.click(opener)
        page.wait_for_selector(there)
        found += axe(page, there)
        page.keyboard.press(closer)
        page.wait_for_selector(there, state="hidden")
    page.evaluate("() => dash_clientside.set_props('other', { value: 'Hello you' })")
    page.evaluate(
        "text => dash_clientside.set_props('go', { data: { text: text, clicks: 'again' } })",
        page.input_value("#prompt"),
    )
    page.wait_for_selector("#tokens-b [data-pos]")
    see(page, explorer, "surprisal")
    found += axe(page, "a comparison")
    page.evaluate("() => dash_clientside.set_props('other', { value: '' })")
    page.evaluate(
        "text => dash_clientside.set_props('go', { data: { text: text, clicks: 'end' } })", page.input_value("#prompt")
    )
    page.wait_for_selector("#tokens-b [data-pos]", state="detached")
    assert not found, "\n".join(found)
    shared.check()


@pytest.mark.parametrize("window", [(1280, 480), (900, 560)])
def test_a_low_window_draws_each_figure_under_its_name(words_page, explorer, window):
    """Where its axes had no room a figure failed, and so did each one after it: another one stood under their names."""
    before = words_page.viewport_size
    resize(words_page, window)
    drawn = """() => { const gd = document.querySelector("#main-figure .js-plotly-plot");
        const squeezed = (text) => text.replace(/<[^>]*>|\\s/g, "");
        return [squeezed(gd.layout.title.text), squeezed(gd.querySelector(".gtitle").textContent), gd.clientHeight] }"""
    for name, figure in (("logit-lens", 0), ("attention-sinks", 2), ("flow-routes", 0), ("surprisal", 0)):
        see(words_page, explorer, name, figure)
        asked, shown, height = words_page.evaluate(drawn)
        assert asked == shown and height >= 250, (name, window)
    resize(words_page, (before["width"], before["height"]))
