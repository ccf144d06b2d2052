"""What the page gives away, and shows again: links, steps, visits, files."""

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.apps.explorer.browser.actions import click_cell, run, selection, view, wait_for_title

pytestmark = pytest.mark.browser
STANDING = (Path(__file__).parent / "standing.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(shared):
    """One page for both tests that begin on the first prompt."""
    return shared()


def test_exports_and_code(page):
    view(page, "Logit lens")
    for title, ending in (("Data (CSV)", ".csv.zip"), ("Data (netCDF)", ".nc"), ("Picture (SVG)", ".svg")):
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=title).click()
        assert download.value.suggested_filename.endswith(ending)
    picture = download.value.path().read_text(encoding="utf-8")
    assert "Prompt: " in picture and "Model: smollm2-135m" in picture  # what the page says beside it
    page.get_by_role("button", name="Export").click()
    page.get_by_role("menuitem", name="Python code").click()
    page.wait_for_selector("pre.code")
    code = page.inner_text("pre.code")
    assert "= LogitLens(" in code and ").run(" in code
    page.keyboard.press("Escape")


def test_a_link_shows_the_same_in_a_fresh_context(page, open_page, screenshots):
    run(page, "import numpy as")
    view(page, "Logit lens")
    page.get_by_text("entropy", exact=True).click()
    wait_for_title(page, "#main-figure", "Entropy")
    click_cell(page, "#main-figure", 2, 7)
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('\"depth\":7')")
    fragment = page.evaluate("() => location.hash")
    assert "token" not in page.url
    other = open_page(fragment)
    other.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 4")
    wait_for_title(other, "#main-figure", "Entropy")
    other.wait_for_selector("#tokens [data-pos='2'].selected")
    assert other.input_value("#prompt") == "import numpy as"
    assert {k: v for k, v in selection(other).items() if k in ("pos", "depth")} == {"pos": 2, "depth": 7}
    other.screenshot(path=screenshots / "link.png")


def test_a_link_to_something_else_says_so(open_page):
    page = open_page("#model=unheard-of&prompt=Hello+there&select=%7B%22pos%22%3A99%7D&view=broken", wait=False)
    page.wait_for_selector(".notice >> nth=1")
    said = page.inner_text("#notice-list")
    assert "unheard-of" in said and "'view'" in said
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 3")


def test_a_pasted_link_to_what_is_not_there_does_not_stop_an_open_page(open_page):
    """Of another version, say, whose views have other names and more figures."""
    page = open_page("#prompt=The+cat+sat&view=" + quote('{"name":"logit-lens","figure":0}'))
    for gone in ('{"name":"logit-lens","figure":99}', '{"name":"a-plugin-of-mine","figure":0}'):
        here = page.evaluate("() => location.hash").partition("&view=")[0]
        page.evaluate("hash => { location.hash = hash }", f"{here}&view={quote(gone)}")
        page.wait_for_function("() => location.hash.includes('select')")  # the page has written its own address again
        assert page.locator(".notice", has_text="Load the page again").count() == 0
    view(page, "Surprisal")
    page.wait_for_function("() => document.querySelector('#said').textContent.startsWith('Next: ')")
    page.go_back()
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Logit lens'")


def test_back_undoes_a_step_and_a_visit_is_kept_and_sent(open_page, tmp_path):
    # In a view of the room in which the next one is: a turn is then one press, and one step, however slow the machine.
    page = open_page('#model=toy-induction&prompt=3+7+9+5+3+7&view={"name":"attention-sinks","figure":0}')
    chosen = "pos => dash_clientside.spine.state.selection.pos === pos"
    tokens = "n => document.querySelectorAll('#tokens [data-pos]').length === n"
    steps = "n => document.querySelector('#visit-open').textContent === `Visit (${n})`"
    page.wait_for_function(steps, arg=1)
    for pos in (1, 3):
        page.wait_for_timeout(1100)  # what follows within a second belongs to one step
        page.click(f"#tokens [data-pos='{pos}']")
        page.wait_for_function(chosen, arg=pos)
    page.wait_for_timeout(1100)
    before = page.evaluate("() => history.length")
    page.evaluate("() => dash_clientside.set_props('selection', { data: { pos: 3, query: 3, layer: 0, head: 0 } })")
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('\"layer\":0')")
    assert page.evaluate("() => history.length") == before  # what comes late and by itself is no step of its own
    view(page, "Induction on this prompt")
    page.wait_for_function(steps, arg=2)
    page.fill("#prompt", "5 5 7 5")
    page.press("#prompt", "Control+Enter")
    page.wait_for_function(tokens, arg=4)
    page.wait_for_function(steps, arg=3)
    page.go_back()
    page.wait_for_function(tokens, arg=6)
    assert page.input_value("#prompt") == "3 7 9 5 3 7"
    page.go_back()
    page.wait_for_function("() => document.querySelector('#params-title').textContent.startsWith('Attention sinks')")
    assert selection(page)["pos"] == 3
    page.go_back()
    page.wait_for_function(chosen, arg=1)
    page.go_forward()
    page.wait_for_function(chosen, arg=3)
    page.click("#visit-open")
    assert not page.locator(".visit [data-starred]").is_visible()  # nothing has a star yet
    row = page.locator(".visit li", has_text="5 5 7 5")
    row.get_by_label("note on").fill("the other prompt")
    row.get_by_label("star:").click()  # at once: leaving the note must not take the button from under the pointer
    assert row.get_by_label("star:").get_attribute("aria-pressed") == "true"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as one page (HTML)").click()
    sent = download.value.path().read_text(encoding="utf-8")
    assert sent.count(">the other prompt<") == 2  # in the list of steps, and with its step
    assert sent.count("<section") == 3 and "<script src" not in sent
    with page.expect_download() as download:
        page.locator(".visit [data-starred]").click()
    assert download.value.path().read_text(encoding="utf-8").count("<section") == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a file").click()
    saved = tmp_path / "visit.json"
    download.value.save_as(saved)
    row.get_by_role("button", name="Show again").click()
    page.wait_for_function(tokens, arg=4)
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Induction on this prompt'")
    other = open_page("#model=toy-induction&prompt=3+7+9")
    other.click("#visit-open")
    other.set_input_files(".visit input[type=file]", saved)
    other.wait_for_selector(".visit [role=status] >> text=3 steps were read.")
    assert other.locator(".visit li", has_text="★").count() == 1
    other.locator(".visit li button[aria-pressed=false]").first.click()
    other.wait_for_function("() => document.querySelectorAll('.visit li [aria-pressed=true]').length === 2")
    # The list was drawn anew, as when a step arrives: what was said stays.
    assert other.locator(".visit [role=status]").text_content() == "3 steps were read."
    saved.write_text('{"kind": "something else"}')
    other.set_input_files(".visit input[type=file]", saved)
    other.wait_for_selector(".visit [role=status] >> text=which holds no visit")


# The figure of a view comes a second late, as over a slow line.
LATE = """() => {
  const plain = window.fetch;
  window.fetch = async (...given) => {
    const is_main = String((given[1] || {}).body).includes("main-message.children");
    if (is_main) await new Promise((done) => setTimeout(done, 1000));
    return plain(...given);
  };
}"""


def test_a_page_at_rest_follows_two_turns_in_a_moment(open_page):
    """The second stayed undrawn until somebody pressed anything: nothing was under way at which Dash goes on."""
    page = open_page("#model=toy-induction&prompt=3+7+9+5+11+3+7+9")
    page.wait_for_function(f"() => ({STANDING})().props['poll.disabled'] === 'true'")  # there is nothing to look for
    page.evaluate(LATE)
    for gap in (30, 50, 70, 90):
        for first, second in (("surprisal", "attention-sinks"), ("induction-heads", "logit-lens")):
            page.evaluate("name => dash_clientside.links.turnTo(name)", first)
            page.wait_for_timeout(gap)
            page.evaluate("name => dash_clientside.links.turnTo(name)", second)
            page.wait_for_function(
                "name => { const main = document.querySelector('#main-figure');"
                " return !main.classList.contains('stale') && main.dataset.stands.startsWith(name) }",
                arg=second,
            )
