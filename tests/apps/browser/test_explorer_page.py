"""The page as a researcher uses it, in a real browser on the default model."""

import json
import re
import time

import pytest

pytestmark = pytest.mark.browser


def run(page, text: str) -> None:
    """Type a prompt, press Ctrl+Enter, and wait until its tokens are shown."""
    page.fill("#prompt", text)
    page.press("#prompt", "Control+Enter")
    page.wait_for_function(
        "text => Array.from(document.querySelectorAll('#tokens [data-pos]')).slice(1)"
        ".map(chip => chip.firstChild.textContent).join('') === text",
        arg=text.replace(" ", "·").replace("\n", "↵"),
    )


def view(page, title: str) -> None:
    """Turn to a view and wait until it is drawn."""
    page.get_by_role("tab", name=title, exact=True).click()
    page.wait_for_selector("#main-message > div", state="detached", timeout=120_000)
    page.wait_for_timeout(400)


def click_cell(page, holder: str, x: int, y: int) -> None:
    """Click the cell of a heatmap by its drawn coordinates."""
    box = page.evaluate(
        "([holder, x, y]) => { const gd = document.querySelector(holder).querySelector('.js-plotly-plot');"
        " const f = gd._fullLayout; const r = gd.getBoundingClientRect();"
        " return [r.x + f.xaxis._offset + f.xaxis.d2p(x), r.y + f.yaxis._offset + f.yaxis.d2p(y)] }",
        [holder, x, y],
    )
    page.mouse.move(*box)
    page.wait_for_timeout(150)
    page.mouse.click(*box)


def selection(page) -> dict:
    """The selection that the page holds."""
    return page.evaluate("() => window.dash_clientside.spine.state.selection")


def test_first_paint_has_a_computed_prompt_with_something_selected(open_page, screenshots):
    page = open_page()
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    assert page.locator("#tokens [data-pos]").count() == 20
    assert page.locator("#tokens .selected").count() == 1
    assert "dequantised Q4_1" in page.inner_text("#model-line")
    page.click("#selfcheck")
    page.wait_for_selector(".mantine-Popover-dropdown table")
    assert "attention rows sum to 1" in page.inner_text(".mantine-Popover-dropdown table")
    page.screenshot(path=screenshots / "first-paint.png")


def test_a_prompt_is_read_in_the_lens_and_a_head_shows_its_pattern(open_page, screenshots):
    page = open_page()
    run(page, "The capital of France is")
    view(page, "Logit lens")
    assert "' Paris'" in page.inner_text("#said")
    click_cell(page, "#main-figure", 5, 30)
    page.wait_for_function("() => document.querySelector('#details').textContent.includes('·Paris')")
    assert selection(page)["depth"] == 30 and selection(page)["pos"] == 5
    page.screenshot(path=screenshots / "lens.png")
    view(page, "Induction heads")
    click_cell(page, "#main-figure", 4, 3)
    page.wait_for_function("() => document.querySelector('#details').textContent.includes('Attention of L3H4')")
    assert selection(page)["layer"] == 3 and selection(page)["head"] == 4
    page.screenshot(path=screenshots / "heads.png")


def test_the_token_strip_carries_the_selection(open_page):
    page = open_page()
    page.click("#tokens [data-pos='2']")
    page.wait_for_selector("#tokens [data-pos='2'].selected")
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('token 2')")
    milliseconds = page.evaluate("() => window.workbenchSelectionMilliseconds")
    print(f"selection shown in the browser after {milliseconds:.1f} ms")
    page.locator("body").press("Escape")
    page.wait_for_function("() => !document.querySelector('#tokens .selected')")


def test_bad_input_is_said_and_loses_nothing(open_page, screenshots):
    page = open_page()
    run(page, "Monday, Tuesday, Wednesday,")
    before = page.locator("#tokens [data-pos]").count()
    page.fill("#prompt", "")
    page.click("#run")
    page.wait_for_selector(".notice")
    assert "empty prompt" in page.inner_text(".notice")
    assert page.locator("#tokens [data-pos]").count() == before
    page.fill("#prompt", "word " * 8200)
    page.press("#prompt", "Control+Enter")
    page.wait_for_selector(".notice >> nth=1")
    assert "8192" in page.locator(".notice").nth(1).inner_text()
    assert page.input_value("#prompt").startswith("word ")
    assert page.locator("#tokens [data-pos]").count() == before
    page.screenshot(path=screenshots / "bad-input.png")
    page.get_by_role("button", name="Dismiss").first.click()
    page.wait_for_function("() => document.querySelectorAll('.notice').length === 1")


HOSTILE = ["<img src=x onerror=window.hacked=1>", "<b>bold</b> & $x^2$ %{z}", "a\u202eb\u200bc", "`${1}` </script>"]


@pytest.mark.parametrize("text", HOSTILE)
def test_prompt_text_is_data(open_page, text):
    page = open_page()
    run_and_wait = page.locator("#tokens [data-pos]").count()
    page.fill("#prompt", text)
    page.press("#prompt", "Control+Enter")
    page.wait_for_function("n => document.querySelectorAll('#tokens [data-pos]').length !== n", arg=run_and_wait)
    view(page, "Logit lens")
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("#tokens img, #tokens b, .js-plotly-plot img, .js-plotly-plot svg b").count() == 0
    assert "\u202e" not in page.inner_text("#tokens")


def test_two_windows_get_their_own_answers(open_page):
    one, two = open_page(), open_page()
    one.fill("#prompt", "The capital of France is")
    two.fill("#prompt", "import numpy as")
    one.press("#prompt", "Control+Enter")
    two.press("#prompt", "Control+Enter")
    for page, n, answer in ((one, 6, "' Paris'"), (two, 4, "' np'")):
        page.wait_for_function("n => document.querySelectorAll('#tokens [data-pos]').length === n", arg=n)
        page.wait_for_function("a => document.querySelector('#said').textContent.includes(a)", arg=answer)


def test_dark_and_narrow(open_page, screenshots):
    page = open_page(width=1024, height=768)
    page.click("#scheme-toggle")
    page.wait_for_selector("[data-mantine-color-scheme=dark]")
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "dark-1024.png")
    size = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 1024 and size[1] <= 768


def test_the_page_does_not_scroll(open_page):
    page = open_page()
    size = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size == [1280, 800]


def test_a_toy_runs_from_token_ids(open_page, screenshots):
    page = open_page()
    page.fill("#prompt", "3 7 9 3")
    page.click("#model")
    page.get_by_role("option", name="toy-induction").click()
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 4")
    page.screenshot(path=screenshots / "toy.png")


def test_arrows_move_the_selection(open_page):
    page = open_page()
    page.click("#tokens [data-pos='4']")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#tokens [data-pos='3'].selected")
    before = selection(page)["depth"]
    page.keyboard.press("ArrowDown")
    page.wait_for_function("d => window.dash_clientside.spine.state.selection.depth === d - 1", arg=before)


def test_answers_are_small_and_fast(open_page):
    page = open_page()
    answers = []

    def note(response):
        if response.url.endswith("_dash-update-component"):
            answers.append(response)

    page.on("response", note)
    started = time.perf_counter()
    page.click("#tokens [data-pos='1']")
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('token 1 ')")
    print(f"details of another token after {time.perf_counter() - started:.3f} s")
    page.wait_for_timeout(1500)
    sizes = [
        (len(r.body()), round(r.request.timing["responseEnd"] - r.request.timing["requestStart"])) for r in answers
    ]
    print(f"answers (bytes, ms): {sizes}")
    assert sizes and max(size for size, _ in sizes) < 1_000_000


def test_no_serious_violation_of_accessibility(open_page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page()
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    found = axe.run(page).response["violations"]
    serious = [
        (v["id"], [n["html"][:160] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")
    ]
    assert not serious, json.dumps(serious, indent=1)


def test_nothing_is_loaded_from_elsewhere(open_page, explorer):
    page = open_page(wait=False)
    hosts = page.evaluate("() => performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
    assert set(hosts) == {re.match(r"http://([^/]+)/", explorer.address)[1]}
