"""What is typed, pasted or touched arrives as it was: lines, the newest text, and nothing of the figure before."""

import json
import re
from urllib.parse import quote

import pytest

from tests.apps.explorer.browser.actions import place_of, turn, view

pytestmark = pytest.mark.browser

TOY = "#model=toy-induction&prompt=3+7+9+5+3+7"
TABLE, OTHER = "a;cat\nb;dog\na;", "a;cat\nb;dog\nb;"


def test_a_prompt_of_several_lines_is_held_against_another_one(open_page):
    """A field of one line made spaces of the ends of the lines: the other prompt was a different text."""
    page = open_page(f"#model=tiny-words&prompt={quote(TABLE)}")
    turn(page, "Attribution patching")
    page.wait_for_selector("#main-message >> text=a copy with moved tokens")
    field = page.get_by_label("Estimate what each head carries from", exact=True)
    field.fill(OTHER)
    said = "said => document.querySelector('#main-message').textContent.includes(said)"
    page.wait_for_function(said, arg=json.dumps(OTHER))  # the sentence says where it begins and ends
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_selector("#said >> text=clean")
    page.wait_for_function("() => document.querySelector('#said').textContent.startsWith('The logit of ')")
    assert field.input_value() == OTHER and field.evaluate("one => one.tagName") == "TEXTAREA"


def test_words_of_a_form_are_not_squeezed_by_what_is_offered(open_page):
    """`Estimate what each head carries from` stood in six lines of one word beside a button."""
    page = open_page(f"{TOY}&other=3+7+9+5+3+9")
    page.wait_for_selector("#tokens-b [data-pos]")
    turn(page, "Attribution patching")
    page.wait_for_selector("#params-form >> text=take the compared prompt")
    words = page.locator(".asked .words span", has_text="Estimate what each head carries from")
    assert words.bounding_box()["height"] < 45  # two lines at most


def test_a_number_is_whole_beside_a_long_unit(open_page):
    """`List the 1000 strings that most look like one` left a field of one digit and a half."""
    page = open_page(TOY)
    for title, name in (("Token erasure: the strings of a corpus", "rows"), ("Induction heads", "n_sequences")):
        turn(page, title)
        field = page.locator(f"#params-form .asked input[id*='\"{name}\"']")
        field.wait_for()
        assert field.evaluate("one => one.scrollWidth <= one.clientWidth && one.clientWidth >= 50"), title


def test_the_number_of_a_token_stands_behind_it_whichever_way_it_is_written(open_page):
    page = open_page("#model=tiny-words&prompt=%D7%A9%D7%9C%D7%95%D7%9D+%D9%85%D8%B1+abc")
    behind = """() => Array.from(document.querySelectorAll('#tokens [data-pos]')).map(chip => {
        const text = document.createRange(); text.selectNodeContents(chip.firstChild);
        return text.getBoundingClientRect().right <= chip.querySelector('sub').getBoundingClientRect().left + 1 })"""
    found = page.evaluate(behind)
    assert len(found) > 5 and all(found)


def test_run_takes_what_was_just_typed_to_compare_with(open_page):
    """As with the prompt itself: on a loaded machine the page may not know yet what stands in the field. Here nothing
    tells it."""
    page = open_page(TOY)
    page.get_by_text("Compare with").click()
    page.wait_for_selector("#other", state="visible")
    page.evaluate(
        """() => {
            const area = document.getElementById("other");
            Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(area, "2 4 6 8 2 4");
            document.getElementById("run").click();
        }"""
    )
    page.wait_for_selector("#tokens-b [data-pos='5']", timeout=30_000)


def test_a_label_goes_with_its_figure(open_page):
    """A finger leaves no cell: `L1H0 1.5` of one figure stood over the next one's."""
    page = open_page(TOY, touch=True)
    view(page, "Induction heads")
    page.touchscreen.tap(*place_of(page, "#main-figure", 0, 1))
    page.wait_for_selector("#main-figure .hoverlayer .hovertext", state="attached")
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('L1H0')")
    page.evaluate("() => document.querySelector(`#tabs [data-view='logit-lens']`).click()")  # no pointer moves
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('top token')")
    page.wait_for_function("() => !document.querySelector('#main-figure.stale')")
    page.wait_for_function("() => !document.querySelector('#main-figure .hoverlayer .hovertext')", timeout=10_000)


def test_a_change_of_another_targets_probability_is_blank(open_page):
    """What each run itself predicts was followed, and the one's chance was subtracted from the other's."""
    page = open_page(f"{TOY}&other=2+4+6+8+2+4")
    page.wait_for_selector("#tokens-b [data-pos]")
    page.click("#tokens [data-pos='5']")
    page.wait_for_selector("#details .values >> text=probability of the target")
    row = page.locator("#details .values tr", has_text="probability of the target")
    assert re.fullmatch(r"probability of the target\s+–\s+[\d.e-]+\s+–", row.inner_text().strip())
    assert "follows another target" in page.inner_text("#details")


def test_what_another_model_drew_says_whose_it_is(open_page):
    """A toy reads no words: its name stood at the top of the page, and under it were figures of the model before."""
    page = open_page("#model=tiny-words&prompt=Hello")
    says = """where => { const place = document.querySelector(where);
        return [place.dataset.whose || null, getComputedStyle(place, "::after").content] }"""
    assert page.evaluate(says, "#main-figure") == [None, "none"]
    page.click("#model")
    page.get_by_role("option", name="toy-induction", exact=True).click()
    page.wait_for_selector("#notice-list >> text=for a model without a tokenizer")
    page.wait_for_selector("#main-figure[data-whose]:not(.stale)")
    for where in ("#tokens", "#main-figure"):
        whose, words = page.evaluate(says, where)
        assert whose == "tiny-words, not of toy-induction" and words.startswith('"of ')
    page.fill("#prompt", "3 7 9 5 3 7")
    page.press("#prompt", "Control+Enter")
    page.wait_for_selector("#main-figure:not([data-whose], .stale)")
    assert page.evaluate(says, "#tokens") == [None, "none"]
