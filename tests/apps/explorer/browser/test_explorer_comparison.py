"""Two runs beside each other: windows, prompts, models, an edit and the intact run."""

import pytest

from tests.apps.explorer.browser.actions import SHOWN, click_cell, view, wait_for_title

pytestmark = pytest.mark.browser


TOY = "#model=toy-induction&prompt=3+7+9+5+3+7"


def test_two_windows_get_their_own_answers(open_page):
    one, two = open_page(TOY), open_page(TOY)
    one.fill("#prompt", "3 7 9 5 3 7 9")
    two.fill("#prompt", "2 4 6 8 2 4")
    one.press("#prompt", "Control+Enter")
    two.press("#prompt", "Control+Enter")
    for page, n, answer in ((one, 7, "'#5'"), (two, 6, "'#6'")):
        page.wait_for_function("n => document.querySelectorAll('#tokens [data-pos]').length === n", arg=n)
        page.wait_for_function("a => document.querySelector('#said').textContent.includes(a)", arg=answer)


def test_two_prompts_side_by_side(open_page, screenshots):
    page = open_page(TOY)
    page.get_by_text("Compare with").click()
    page.fill("#other", "2 4 6 8 2 4 6 8 2")
    page.click("#run")
    page.wait_for_selector("#tokens-b [data-pos='8']")
    page.wait_for_function("() => document.querySelectorAll('#main-figure .js-plotly-plot .nsewdrag').length === 2")
    page.click("#tokens-b [data-pos='4']")
    page.wait_for_selector("#tokens [data-pos='4'].selected")
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "compare.png")


def test_an_intervention_is_held_against_the_intact_run(open_page, screenshots):
    page = open_page(TOY)
    view(page, "Induction heads")
    click_cell(page, "#main-figure", 0, 1)
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('L1H0')")
    page.click("#intervene")
    page.get_by_role("menuitem", name="without L1H0", exact=True).click()
    page.wait_for_selector("#edit-list .chip")
    page.wait_for_selector("#tokens-b [data-pos]")
    view(page, "Logit lens")
    wait_for_title(page, "#other-holder", "(intact)")
    page.screenshot(path=screenshots / "intervention.png")
    page.locator("#compare-mode").get_by_text("difference", exact=True).click()
    wait_for_title(page, "#main-figure", "this run minus the intact one")
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('Largest change')")
    axis = page.evaluate("() => document.querySelector('#main-figure .js-plotly-plot').layout.coloraxis")
    assert axis["cmin"] == -axis["cmax"] < 0
    page.screenshot(path=screenshots / "difference.png")
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('edits=[\"L1H0\"]&compare=difference')")
    other = open_page(page.evaluate("() => location.hash"))
    wait_for_title(other, "#main-figure", "this run minus the intact one")
    page.get_by_role("button", name="Take back: without L1H0").click()
    page.wait_for_selector("#tokens-b [data-pos]", state="detached")


def test_models_with_other_tokens_are_not_compared(open_page):
    page = open_page(TOY)
    page.get_by_text("Compare with").click()
    page.click("#other-model")
    page.get_by_role("option", name="smollm2-135m").click()
    page.click("#run")
    page.wait_for_selector(".notice")
    assert "whose tokenizers differ" in page.inner_text(".notice")


def test_two_models_with_one_tokenizer(open_page, screenshots):
    page = open_page("#model=toy-induction&prompt=3+7+9+5+3+7&other-model=toy-without-its-head&compare=difference")
    wait_for_title(page, "#main-figure", "this run minus toy-without-its-head")
    view(page, "Induction heads")
    wait_for_title(page, "#main-figure", "this run minus toy-without-its-head")
    # What a head writes is not where it looks: without it, scores of attention stay as they are.
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('the two are equal')")
    page.screenshot(path=screenshots / "two-models.png")


def test_several_prompts_are_pinned(open_page, screenshots):
    """They stand beside each other with what they share, in the address and in the visit, until they are taken away."""
    page, texts = open_page(TOY), ("3 7 9 5 3 7", "2 4 6 8 2 4", "9 8 1 3 8 1")
    view(page, "Induction on this prompt")
    for text in texts:
        page.fill("#prompt", text)
        page.press("#prompt", "Control+Enter")
        page.wait_for_function(f"text => {SHOWN} === text", arg=text)
        page.click("#pin")
        page.wait_for_selector(f".pin.current[data-text='{text}']")
    page.wait_for_function("() => document.querySelectorAll('.pin-figure .js-plotly-plot').length === 3")
    said = "() => document.querySelector('.pins-said').textContent.startsWith('Induction score of 3 prompts: L1H0 is ')"
    page.wait_for_function(said)
    assert page.locator(".thumbs").is_hidden() and page.inner_text("#pin") == "Unpin"
    page.screenshot(path=screenshots / "pins.png")
    page.click("#visit-open")
    page.wait_for_selector(".visit li >> text=pinned prompts: 3")  # when it has stood for a moment
    page.keyboard.press("Escape")
    page.wait_for_function("() => new URLSearchParams(location.hash.slice(1)).get('pins')")
    other = open_page(page.evaluate("() => location.hash"))
    other.wait_for_function("() => document.querySelectorAll('.pin-figure .js-plotly-plot').length === 3")
    other.wait_for_function(said)
    page.locator(".pin-open").first.click()
    page.wait_for_function(f"text => {SHOWN} === text", arg=texts[0])
    page.wait_for_selector(f".pin.current[data-text='{texts[0]}']")
    page.get_by_role("button", name="unpin prompt 3").click()
    page.wait_for_function("() => document.querySelectorAll('.pin-figure .js-plotly-plot').length === 2")
    page.get_by_role("button", name="Unpin all").click()
    page.wait_for_selector(".pin", state="detached")
    assert page.locator(".thumbs").is_visible()
