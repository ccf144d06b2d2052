"""Whatever is pressed in whatever haste, and however late the server answers: the page comes to rest on what was last
chosen, and all its parts are about that."""

import random
import threading
import time

import pytest

from apps.explorer.callbacks import details, figure, poll, run, view
from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import start
from probes import CATALOG

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TOY = "toy-induction"
ROUNDS = 12
VIEWS = ("induction-heads", "attention-sinks", "flow-routes", "direct-logit-attribution", "logit-lens", "head-table",
         "surprisal", "attention")  # fmt: skip
# What does the work of an answer, and up to how many seconds later than it could.
LATE = ((figure, "large_view", 1.2), (details, "detail_panel", 0.6), (view, "start_view", 0.5), (poll, "look", 0.3),
        (run, "_both", 0.5))  # fmt: skip
AT_REST = """([title, n]) => !document.querySelector('#main-figure.stale') && !document.querySelector('.job')
  && document.querySelector('#params-title').textContent === title
  && document.querySelectorAll('#tokens [data-pos]').length === n"""


@pytest.fixture
def late_page(browser, tmp_path, monkeypatch):
    """A page of a toy behind a server that answers late at random, and its engine."""
    draw = random.Random(1)
    for module, name, most in LATE:
        plain = getattr(module, name)

        def slow(*given, plain=plain, most=most, **more):
            time.sleep(most * draw.random())
            found = plain(*given, **more)
            time.sleep(most / 2 * draw.random())
            return found

        monkeypatch.setattr(module, name, slow)
    running = start(Settings(models=(TOY,), port=0, token="", directory=tmp_path), CATALOG)
    threading.Thread(target=running.run, daemon=True).start()
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(running.address)
    page.wait_for_selector("#tokens [data-pos]")
    yield page, running.engine
    page.close()
    running.close()


def test_the_page_comes_to_rest_on_what_was_last_chosen(late_page):
    page, engine = late_page
    draw = random.Random(2)
    for _ in range(ROUNDS):
        ids = [str(draw.randrange(2, 20)) for _ in range(draw.choice([2, 6, 12]))]
        page.fill("#prompt", " ".join(ids))
        page.press("#prompt", "Control+Enter")
        for name in draw.sample(VIEWS, 4):
            page.evaluate("name => document.querySelector(`#tabs [data-view='${name}']`).click()", name)
            page.wait_for_timeout(draw.choice([20, 200, 700]))
            if draw.random() < 0.5:
                chosen = {"pos": draw.randrange(2), "layer": draw.randrange(2), "head": 0, "depth": 1}
                page.evaluate("chosen => dash_clientside.set_props('selection', { data: chosen })", chosen)
        page.wait_for_function(AT_REST, arg=[engine.views[name].title, len(ids)])
        page.wait_for_timeout(300)
        stands = page.get_attribute("#main-figure", "data-stands")
        assert stands.startswith(f"{name} 0 "), (name, stands)
        tabs = "[...document.querySelectorAll('#tabs [aria-selected=true]')].map(tab => tab.dataset.view)"
        assert page.evaluate(tabs) == [name]
