"""Every view of the catalog, and a newcomer's way through some of them."""

import os
import re

import pytest

from tests.apps.explorer.browser.actions import click_cell, turn, view, wait_for_title

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("model", ["toy-induction", pytest.param("smollm2-135m", marks=pytest.mark.slow)])
def test_every_view_draws_and_is_looked_at(model, open_page, screenshots):
    """Studies, which are started by hand, show their Start button; what is of other models says so."""
    page = open_page(
        f"#model={model}&prompt={'3 7 9 5 3 7 9 2' if model == 'toy-induction' else 'The capital of Spain is'}"
    )
    titles = page.locator("#tabs [role=tab]").evaluate_all("tabs => tabs.map(tab => tab.textContent)")
    assert len(titles) > 30
    for title in titles:
        print(title, flush=True)  # the last one is the one that did not come
        turn(page, title)
        page.wait_for_function("t => document.querySelector('#params-title').textContent === t", arg=title)
        page.wait_for_function(
            "() => !document.querySelector('#main-figure.stale') && (!document.querySelector('#main-message > div')"
            " || (document.querySelector('#main-message button') || document.querySelector('#main-message').textContent"
            ".includes('for other models')) && !document.querySelector('.job'))",
            timeout=240_000,
        )
        if "WORKBENCH_SCREENSHOTS" in os.environ:  # somebody wants to look at them
            page.wait_for_timeout(250)  # the line under the tab has arrived
            name = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
            page.screenshot(path=screenshots / f"view-{name}.png")


def test_the_journey_of_a_newcomer(open_page, screenshots):
    """Find an induction head, check it causally, see the route of a prediction, copy the link."""
    page = open_page(height=720)
    page.click("#example")
    page.get_by_role("option", name="a made-up name again").click()
    page.wait_for_selector("#tokens [data-pos='17']")
    page.wait_for_selector("#tokens [data-pos='18']", state="detached")
    view(page, "Induction heads")
    click_cell(page, "#main-figure", 6, 18)
    page.wait_for_function("() => document.querySelector('#details').textContent.includes('Attention of L18H6')")
    page.mouse.move(5, 5)
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "journey-head.png")
    page.get_by_role("button", name="Check L18H6 on random tokens that repeat", exact=True).wait_for()
    view(page, "Induction on this prompt")  # its check is of this prompt: a sixteenth of the other's passes
    page.get_by_role("button", name=re.compile("^Check L18H6")).first.click()
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Causal check'")
    page.wait_for_selector("#main-figure:not(.stale) .js-plotly-plot .nsewdrag")
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('L18H6')", timeout=480_000)
    page.wait_for_selector(".job", state="detached", timeout=240_000)
    assert "what came next the last time" in page.inner_text("#said")
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "journey-check.png")
    view(page, "Information-flow routes")
    page.fill("input[aria-label='or by all parts above a share of']", "0.04")
    page.keyboard.press("Tab")
    wait_for_title(page, "#main-figure", "0.04")
    page.click("#link-copy")
    page.wait_for_function("() => document.querySelector('#link-copy').textContent !== 'Copy link'")
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "journey-route.png")
