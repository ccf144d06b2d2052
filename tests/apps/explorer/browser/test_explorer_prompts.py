"""What is typed into the page, rightly or wrongly, and what becomes of it: mostly on one page, one after another."""

import threading

import pytest

from apps.explorer.engine.jobs import SELECTION, Job
from tests.apps.explorer.browser.actions import click_cell, run, selection, view

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def one_page(shared):
    """One page for all tests that run a prompt of their own on it first."""
    return shared()


@pytest.fixture
def page(one_page, shared):
    """That page, without notices."""
    for button in one_page.get_by_role("button", name="Dismiss").all():
        button.click()
    yield one_page
    shared.check()


def test_a_prompt_is_read_in_the_lens_and_a_head_shows_its_pattern(page, screenshots):
    run(page, "The capital of France is")
    view(page, "Logit lens")
    page.wait_for_function("() => document.querySelector('#said').textContent.includes(\"' Paris'\")")
    click_cell(page, "#main-figure", 5, 30)
    page.wait_for_function("() => document.querySelector('#details').textContent.includes('·Paris')")
    assert selection(page)["depth"] == 30 and selection(page)["pos"] == 5
    page.screenshot(path=screenshots / "lens.png")
    view(page, "Induction heads")
    click_cell(page, "#main-figure", 4, 3)
    page.wait_for_function("() => document.querySelector('#details').textContent.includes('Attention of L3H4')")
    assert selection(page)["layer"] == 3 and selection(page)["head"] == 4
    page.screenshot(path=screenshots / "heads.png")


def test_bad_input_is_said_and_loses_nothing(page, screenshots):
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
    assert "8192" in page.locator(".notice").first.inner_text()  # the newest, where one looks
    assert page.input_value("#prompt").startswith("word ")
    assert page.locator("#tokens [data-pos]").count() == before
    page.screenshot(path=screenshots / "bad-input.png")
    page.fill("#prompt", "")
    page.click("#run")
    page.wait_for_function("() => document.querySelector('.notice').textContent.includes('empty prompt')")
    assert page.locator(".notice").count() == 2  # said again, it stands once
    page.get_by_role("button", name="Dismiss").first.click()
    page.wait_for_function("() => document.querySelectorAll('.notice').length === 1")
    run(page, "Monday, Tuesday,")


def test_while_the_first_prompt_is_computed_the_page_says_so(open_page, explorer):
    """And nothing of "not computed yet" beside a bar that moves; at rest it is the other way round."""
    gate, began = threading.Event(), threading.Event()

    def hold(job):
        began.set()
        gate.wait(60)

    explorer.engine.hosted("toy-induction").worker.submit(Job("hold", "hold", SELECTION, hold, {"other"}))
    assert began.wait(60)
    page = open_page("#model=toy-induction&prompt=11+3+8+11", wait=False)
    page.wait_for_selector("#jobs .job")
    page.wait_for_selector("#main-message >> text=The prompt is being computed")
    assert page.locator("#main-message .at-rest").is_hidden()
    assert "the one before" not in page.evaluate(
        "getComputedStyle(document.querySelector('#main-figure'), '::after').content"
    )
    # As if nothing were in hand, before the page looks again.
    at_rest = """() => {
      document.querySelectorAll('#jobs .job').forEach((job) => job.classList.remove('job'));
      const seen = (part) => getComputedStyle(document.querySelector('#main-message ' + part)).display !== 'none';
      return [seen('.at-rest'), seen('.at-work')];
    }"""
    assert page.evaluate(at_rest) == [True, False]
    gate.set()
    page.wait_for_selector("#tokens [data-pos='3']")


def test_a_late_look_does_not_end_the_looking_for_a_newer_run(open_page):
    page = open_page()
    held = []

    def hold(route):
        """Keep back one answer that found nothing to do."""
        answer = route.fetch()
        if not held and "idle.data" in route.request.post_data and answer.json()["response"]["idle"]["data"]:
            held.append((route, answer))
        else:
            route.fulfill(response=answer)

    page.wait_for_function("() => (document.querySelector('#main-figure .js-plotly-plot').layout.meta || {}).axes")
    page.wait_for_selector(".job", state="detached")
    page.wait_for_timeout(1000)  # it has come to rest
    page.route(lambda url: "_dash-update-component" in url, hold)
    page.click("#tokens [data-pos='2']")  # wakes it for one look
    for _ in range(200):
        page.wait_for_timeout(50)
        if held:
            break
    route, answer = held[0]
    # Run waits for the answer to a look, until the next one: that comes after a minute, or when it is told to.
    page.evaluate("() => dash_clientside.set_props('poll', { interval: 200 })")
    page.fill("#prompt", "Five words of another text")
    with page.expect_response(lambda r: '"output":"..asked.data' in r.request.post_data.replace(" ", "")):
        page.click("#run")
    route.fulfill(response=answer)
    page.wait_for_function("() => document.querySelector('#tokens').textContent.includes('another')")
    page.unroute_all(behavior="ignoreErrors")


def test_a_chat_goes_through_the_template(page):
    page.fill("#prompt", "Say yes")
    page.get_by_text("chat", exact=True).click()
    page.wait_for_function("() => document.querySelector('#tokens').textContent.includes('<|im_end|>')")
    page.get_by_text("raw", exact=True).click()
    page.wait_for_function("() => !document.querySelector('#tokens').textContent.includes('<|im_end|>')")


def test_the_model_continues_the_prompt(page):
    run(page, "The capital of France is")
    page.get_by_text("Continue the prompt").click()
    page.get_by_role("button", name="Let the model write").click()
    page.wait_for_function("() => document.querySelector('#prompt').value.startsWith('The capital of France is Paris')")
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length > 6")


def test_a_toy_runs_from_token_ids(page, screenshots):
    page.fill("#prompt", "3 7 9 3")
    page.click("#model")
    page.get_by_role("option", name="toy-induction").click()
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 4")
    page.screenshot(path=screenshots / "toy.png")


def test_a_lost_server_is_said_and_nothing_is_lost(browser, explorer):
    context = browser.new_context()
    page = context.new_page()
    page.goto(explorer.address)
    page.wait_for_selector("#tokens [data-pos]")
    page.fill("#prompt", "Nothing is lost here")
    context.set_offline(True)
    page.click("#tokens [data-pos='1']")
    page.wait_for_selector("#connection:not([hidden])")
    context.set_offline(False)
    page.wait_for_selector("#connection[hidden]", state="attached")
    page.press("#prompt", "Control+Enter")
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 5")
    context.close()
