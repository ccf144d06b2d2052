"""Two runs beside each other: windows, prompts, models, an edit and the intact run."""

import pytest

from tests.apps.explorer.browser.actions import SHOWN, click_cell, place_of, selection, turn, view, wait_for_title
from tests.apps.explorer.browser.looks import rest

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
    assert page.inner_text("#tokens-b > span") == "compared"  # which of the two rows is which
    page.wait_for_function("() => document.querySelectorAll('#main-figure .js-plotly-plot .nsewdrag').length === 2")
    page.click("#tokens-b [data-pos='4']")
    page.wait_for_selector("#tokens [data-pos='4'].selected")
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "compare.png")


def test_a_study_of_both_prompts_is_drawn_when_the_second_is_there(open_page, screenshots):
    """Nothing that the page keeps of the shown run changes when that of the compared one ends."""
    page = open_page(TOY + "&other=2+4+6+8+2+4")
    page.wait_for_selector("#tokens-b [data-pos]")
    turn(page, "Causal check")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#main-figure .js-plotly-plot .nsewdrag').length === 2")
    page.wait_for_selector("#said >> text=Removing")
    rest(page)
    assert "Of the one compared with" not in page.inner_text("#said")
    page.screenshot(path=screenshots / "compared-study.png")


def test_what_lacks_of_the_compared_prompt_is_said_and_started(open_page):
    """The shown prompt's result stays, and is not made again."""
    page = open_page("#model=toy-induction&prompt=3+7+9+5+3+7+9")
    turn(page, "Causal check")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_selector("#said >> text=Removing")
    page.get_by_text("Compare with").click()
    page.fill("#other", "2 4 6 8 2 4 6")
    page.click("#run")
    page.wait_for_selector("#said >> text=Of the one compared with: not computed yet.")
    assert "What the one compared with holds here is not there yet." in page.inner_text("#details")
    page.locator("#said").get_by_role("button", name="Start", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#main-figure .js-plotly-plot .nsewdrag').length === 2")
    page.wait_for_function("() => !document.querySelector('#said').textContent.includes('Of the one')")


def test_two_prompts_stand_row_by_row_whatever_their_titles_take(open_page):
    """The compared one's title is longer by a word, and in a narrow figure by a line."""
    words = "model=tiny-words&prompt=The+Eiffel+Tower+is+in+the+city+of&other=The+Colosseum+is+in+the+city+of"
    page = open_page(f'#{words}&view={{"name":"flow-routes","figure":0}}')
    plots = "[...document.querySelectorAll('#main-figure .js-plotly-plot')]"
    page.wait_for_function(f"() => {plots}.filter(gd => gd._fullLayout && gd.offsetParent).length === 2")
    lines = f"{plots}.map(gd => gd.layout.title.text.split('<br>').length)"
    seen = set()
    for width in (1600, 1280, 1180, 1000):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(500)
        page.wait_for_function(f"() => new Set({plots}.map(gd => gd._fullLayout.margin.t)).size === 1")
        page.wait_for_function(f"() => new Set({plots}.map(gd => Math.round(gd._fullLayout._size.t))).size === 1")
        alone = f"{plots}.flatMap(gd => gd.layout.title.text.split('<br>').slice(0, -1)).some(line => line.length < 9)"
        assert not page.evaluate(alone)  # no word has a line to itself but the last
        seen.add(tuple(page.evaluate(lines)))
    assert any(first != second for first, second in seen)  # or nothing was tried


def test_two_prompts_show_the_same_tokens_where_there_is_room_for_some(open_page):
    """The colour bar beside the second one takes room: both show as many as fit there."""
    words = "model=tiny-words&prompt=The+Eiffel+Tower+is+in+Rome.+Everybody+knows+that+the+Eiffel+Tower+is+in+the+city"
    page = open_page(
        f"#{words}&other=The+Eiffel+Tower+is+in+Paris.+Everybody+knows+that+the+Eiffel+Tower+is+in+the+city"
    )
    page.wait_for_function("() => document.querySelectorAll('#main-figure .js-plotly-plot .nsewdrag').length === 2")
    ranges = "[...document.querySelectorAll('#main-figure .js-plotly-plot')].map(gd => String(gd.layout.xaxis.range))"
    for width in (1280, 1440, 1100):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(500)
        page.wait_for_function(f"() => new Set({ranges}).size === 1")
        rest(page)
        assert len(set(page.evaluate(ranges))) == 1


def test_an_intervention_is_held_against_the_intact_run(open_page, screenshots):
    page = open_page(TOY)
    view(page, "Induction heads")
    click_cell(page, "#main-figure", 0, 1)
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('L1H0')")
    page.click("#intervene")
    page.get_by_role("menuitem", name="without L1H0", exact=True).click()
    page.wait_for_selector("#edit-list .chip")
    page.wait_for_selector("#tokens-b [data-pos]")
    assert page.inner_text("#tokens-b > span") == "intact"
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
    # What a head writes is not where it looks: without it, scores of attention stay as they are, and losses do not.
    said = "No change of induction score. Largest change of loss on the first copy"
    page.wait_for_function("said => document.querySelector('#said').textContent.includes(said)", arg=said)
    page.screenshot(path=screenshots / "two-models.png")


SAID = "text => document.querySelector('#said').textContent.includes(text)"


def drag(page, source, target) -> None:
    """From one place to another, as a hand does."""
    page.mouse.move(*source)
    page.mouse.down()
    page.mouse.move(source[0] + 10, source[1], steps=3)
    page.mouse.move(*target, steps=5)


def test_a_state_of_the_compared_prompt_is_dragged_onto_one_of_the_shown_prompt(open_page, screenshots):
    page = open_page(TOY + "&other=2+4+6+8+2+4")
    page.wait_for_selector("text=can be dragged onto one of this prompt")
    rest(page)
    cells = place_of(page, "#other-holder", 3, 1), place_of(page, "#main-figure", 5, 1)
    drag(page, *cells)
    page.wait_for_selector(".held >> text=state of token 3, depth 1 → token 5")
    assert page.locator("#main-figure .preview:visible").count() == 1
    page.screenshot(path=screenshots / "drag.png")
    page.keyboard.press("Escape")
    page.mouse.up()
    assert page.locator(".held").count() == 0 and page.text_content("#params-title") == "Logit lens"
    assert selection(page)["pos"] == 5  # no click on the cell where it began
    drag(page, *cells)
    page.mouse.up()
    page.wait_for_function(SAID, arg="With L1 pos 5 as at token 3 ")
    assert page.text_content("#params-title") == "Change it and see" and selection(page)["pos"] == 5
    assert page.locator("#other-holder .js-plotly-plot").is_hidden()  # it is about both prompts already
    page.screenshot(path=screenshots / "swapped.png")
    # A state that no block reads is refused in a sentence.
    turn(page, "Logit lens")
    page.wait_for_selector("text=can be dragged onto one of this prompt")
    rest(page)
    drag(page, place_of(page, "#other-holder", 3, 2), place_of(page, "#main-figure", 5, 2))
    page.mouse.up()
    page.wait_for_selector(".notice >> text=one in front of a block, at depth 0 to 1")


def test_a_state_is_swapped_by_the_keyboard_alone(open_page):
    page = open_page(TOY + "&other=2+4+6+8+2+4")
    page.wait_for_selector("text=can be dragged onto one of this prompt")
    rest(page)
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('depth 1')")
    assert selection(page)["pos"] == 4
    button = page.get_by_role("button", name="Swap in the compared prompt's state of token 4 and see", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(SAID, arg="With L1 pos 4 as at token 4 ")


def test_what_is_selected_is_selected_in_every_pinned_prompt(open_page):
    """Its counterpart, that is; a click in any of them selects; how they stand below each other is in the link."""
    page = open_page("#model=toy-induction&prompt=8+1+2+4+6+2+4&pins=" + '["2 4 6 2 4","8 1 2 4 6 2 4","9 9 9"]')
    page.wait_for_function("() => document.querySelectorAll('.pin-figure .js-plotly-plot').length === 3")
    marked = """() => Array.from(document.querySelectorAll('.pin-figure .js-plotly-plot'), (gd) => {
        const one = (gd.layout.shapes || []).find((shape) => shape.name === 'selected');
        return one ? (one.x0 + one.x1) / 2 : null })"""
    page.click("#tokens [data-pos='3']")
    page.wait_for_function(f"() => JSON.stringify(({marked})()) === '[1,3,null]'")
    page.mouse.click(*place_of(page, ".pin:nth-child(1) .pin-figure", 2, 1))
    page.wait_for_function(f"() => JSON.stringify(({marked})()) === '[2,4,null]'")
    assert selection(page)["pos"] == 4 and selection(page)["depth"] == 1
    page.select_option(".pins-side select", "role")  # 8 1 has columns of its own, and what is all unlike ends together
    page.wait_for_function(f"() => JSON.stringify(({marked})()) === '[4,4,4]'")
    cells = page.evaluate("() => document.querySelector('.pin-figure .js-plotly-plot').calcdata[0][0].x.length")
    assert cells == 6  # five cells behind two columns, and their last edge
    page.select_option(".pins-side select", "first")
    page.wait_for_function("() => document.querySelector('.pin-figure .js-plotly-plot').layout.meta.x_at === undefined")
    page.wait_for_function(f"() => JSON.stringify(({marked})()) === '[4,4,null]'")
    page.wait_for_function("() => location.hash.includes('aligned')")
    other = open_page(page.evaluate("() => location.hash"))
    other.wait_for_function(f"() => JSON.stringify(({marked})()) === '[4,4,null]'")
    assert other.input_value(".pins-side select") == "first"


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


def test_pinned_prompts_that_begin_alike_are_named_by_where_they_part(open_page):
    pins = '["1 2 3 4 5 6 7 8 9 1 2","1 2 3 4 5 6 7 8 9 3 4","7 7"]'
    page = open_page(f"#model=toy-induction&prompt=9+9+9&pins={pins}")
    page.wait_for_selector(".pin:nth-child(3)")
    assert page.locator(".pin-open").all_inner_texts() == ["1. … 1 2", "2. … 3 4", "3. 7 7"]


def test_a_study_of_a_pair_takes_the_compared_prompt(open_page):
    """It is filled in, and named; the study is of both then, so that it does not run on the other one, too."""
    page = open_page(TOY + "&other=2+4+6+8+2+4")
    page.wait_for_selector("#tokens-b [data-pos]")
    turn(page, "Activation patching")
    page.wait_for_selector('#main-message .plan >> text=Run "2 4 6 8 2 4" and put back')
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_function(SAID, arg=" clean, ")
    assert "none was given" not in page.inner_text("#said") and "Of the one compared with" not in page.inner_text(
        "#said"
    )
    assert page.locator("#other-holder .js-plotly-plot").is_hidden()
