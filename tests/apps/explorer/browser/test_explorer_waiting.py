"""What a page shows while it waits: for a model, for a prompt, for the second of two prompts."""

import threading

import pytest

from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import start
from tests.apps.explorer.browser.stepped import LIMIT, Steps, wait_for_said
from tests.tiny_analyses import tiny_study, tiny_view
from workbench import load
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.results import dataset

pytestmark = pytest.mark.browser
FIRST, SECOND = "3 7 9 3", "2 4 6 2"
STRIP = "() => [...document.querySelectorAll('#tokens [data-pos]')].map(chip => chip.firstChild.textContent).join('')"
COLOURS = """() => {
  const seen = document.createElement('span');
  document.body.append(seen);
  const shown = (name) => { seen.style.color = `var(${name})`; return getComputedStyle(seen).color; };
  return [getComputedStyle(document.querySelector('#said')).color, shown('--quiet'), shown('--text')];
}"""


class Gate:
    """What an analysis and a model wait at until the test opens it."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()

    def analyse(self, observation):
        assert self.open.wait(LIMIT / 1000)
        return dataset(observation, passed=("pos", [1.0] * len(observation.tokens[0]), "1", (0, None))).assign_attrs(
            summary="It passed."
        )

    def load(self, name, progress):
        assert self.open.wait(LIMIT / 1000)
        return load(name)

    @staticmethod
    def figure(result):
        from workbench.figures import token_strip

        return token_strip(result, "passed", title="Passed")


@pytest.fixture
def waiting(browser, tmp_path):
    """A gate, the steps of a study, and what opens a page on both (settings of the browser's context)."""
    gate, steps, contexts = Gate(), Steps(), []
    needs = {"needs": lambda self, model, tokens: (), "analyse": gate.analyse}
    views = [
        tiny_view(OnPrompt, "gated", needs, figures=(gate.figure,)),
        tiny_study("steps", steps.study, figures=(steps.figure,)),
    ]
    server = start(Settings(models=("toy-induction",), port=0, directory=tmp_path), views, load=gate.load)
    threading.Thread(target=server.run, daemon=True).start()

    def opened(link: str, **settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(LIMIT)
        page.goto(f"{server.address}#model=toy-induction&{link}")
        return page

    yield gate, steps, opened
    gate.open.set()
    for context in contexts:
        context.close()
    server.close()


def gated(opened, **settings):
    """A page on which the first prompt is drawn."""
    page = opened("prompt=3+7+9+3&view=" + '{"name":"gated","figure":0}', **settings)
    wait_for_said(page, "It passed.")
    page.wait_for_function("() => !document.querySelector('#main-figure.stale')")
    return page


def ask(page, text: str) -> None:
    page.fill("#prompt", text)
    page.press("#prompt", "Control+Enter")


def test_what_is_of_the_prompt_before_says_so_until_the_new_one_is_there(waiting):
    gate, _, opened = waiting
    page = gated(opened)
    before = page.evaluate(STRIP)
    assert page.evaluate(COLOURS)[0] == page.evaluate(COLOURS)[2]
    gate.open.clear()
    ask(page, SECOND)
    page.wait_for_selector("#tokens.before")
    page.wait_for_selector("#main-figure.stale")
    after = "q => getComputedStyle(document.querySelector(q), '::after').content"
    assert page.evaluate(after, "#tokens") == '"of the prompt before"'
    assert page.evaluate(after, "#main-figure").startswith('"the one before')
    page.wait_for_timeout(700)  # it fades
    assert page.evaluate(STRIP) == before and page.inner_text("#said") == "It passed."
    said, quiet, text = page.evaluate(COLOURS)
    assert said == quiet != text
    opacity = "q => Number(getComputedStyle(document.querySelector(q)).opacity)"
    assert page.evaluate(opacity, "#tokens") >= 0.5 and page.evaluate(opacity, "#main-figure .figure") >= 0.5
    gate.open.set()
    page.wait_for_function(STRIP.replace("()", "before", 1) + " !== before", arg=before)
    page.wait_for_function("() => !document.querySelector('#tokens.before, #main-figure.stale')")
    assert page.evaluate(after, "#tokens") == "none"


def test_a_prompt_that_is_cancelled_leaves_the_one_before_as_it_was(waiting):
    gate, _, opened = waiting
    page = gated(opened)
    gate.open.clear()
    ask(page, SECOND)
    page.wait_for_selector("#tokens.before")
    page.get_by_role("button", name="Cancel").first.click()
    gate.open.set()
    page.wait_for_function("() => !document.querySelector('#tokens.before, #main-figure.stale')")
    assert page.inner_text("#said") == "It passed."
    assert page.evaluate(STRIP).endswith("3")


def test_until_the_model_is_there_the_page_says_that_it_gets_ready(waiting):
    gate, _, opened = waiting
    gate.open.clear()
    page = opened("prompt=3+7+9+3&view=" + '{"name":"gated","figure":0}')
    # Until it is known what is done, then by its name: the model, or what waits for the gate where that was quicker.
    foot = "words => new RegExp(words).test(document.querySelector('#jobs')?.textContent ?? '')"
    page.wait_for_function(foot, arg="Getting ready|load toy-induction|gated|prompt")
    assert page.inner_text("#said") != "It passed."
    gate.open.set()
    wait_for_said(page, "It passed.")
    page.wait_for_function(foot.replace("=> new", "=> !new"), arg="Getting ready|load toy-induction")


def test_under_a_finger_no_tools_lie_over_a_title(waiting):
    _, _, opened = waiting
    tools = "() => [...document.querySelectorAll('#main-figure .modebar')].map(one => getComputedStyle(one).display)"
    touched = gated(opened, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    assert set(touched.evaluate(tools)) <= {"none"} and touched.locator("#main-figure .main-svg").count()
    pointed = gated(opened)
    pointed.hover("#main-figure .main-svg >> nth=0")
    pointed.wait_for_selector("#main-figure .modebar")
    assert "none" not in pointed.evaluate(tools)


def test_on_a_phone_how_far_it_is_is_seen_from_run(waiting):
    gate, _, opened = waiting
    page = gated(opened, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 700})
    gate.open.clear()
    ask(page, SECOND)
    page.wait_for_selector(".job")
    page.evaluate("() => scrollTo(0, 0)")
    seen = "() => { const box = document.querySelector('.job').getBoundingClientRect(); return [box.top, box.bottom]; }"
    top, bottom = page.evaluate(seen)
    assert 0 < top < bottom <= 700
    gate.open.set()
    page.wait_for_selector(".job", state="detached")
    assert page.evaluate("() => document.querySelector('#jobs').getBoundingClientRect().top") > 700  # at its end again


def test_a_study_of_both_prompts_is_drawn_when_the_second_is_there(waiting):
    """Nothing that the page keeps of the shown run changes when that of the compared one ends."""
    _, steps, opened = waiting
    page = opened("prompt=3+7+9+3&other=2+4+6+2&view=" + '{"name":"steps","figure":0}')
    page.wait_for_selector("#tokens-b [data-pos]")
    page.get_by_role("button", name="Start", exact=True).click()
    panels = "() => document.querySelectorAll('#main-figure .js-plotly-plot .nsewdrag').length"
    steps.let(3)
    wait_for_said(page, "3 steps are done.")
    page.wait_for_timeout(1500)  # longer than the page looks again: the first is drawn, and kept
    steps.let(3)
    page.wait_for_function(f"{panels} === 2")
    page.wait_for_function("() => !document.querySelector('#said').textContent.includes('Of the one')")
