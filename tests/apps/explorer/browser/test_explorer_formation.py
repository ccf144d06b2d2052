"""A timeline on the page: it is started by hand, grows while the toy is trained, and is scrubbed without the server."""

import threading
from urllib.parse import urlencode

import pytest

from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import start

pytestmark = pytest.mark.browser
TOY = "toy:induction,length=32,d_model=16,steps=40,every=10"


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A server of a small toy, with a cache of its own."""
    from probes import CATALOG

    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    views = [CATALOG.view(name) for name in ("training-timeline", "task-attention")]
    server = start(Settings(models=(TOY,), port=0, directory=tmp_path / "results"), views)
    threading.Thread(target=server.run, daemon=True).start()
    yield server.address
    server.close()


def test_a_timeline_grows_and_is_scrubbed_in_the_browser(browser, address, screenshots):
    page = browser.new_context().new_page()
    page.set_default_timeout(300_000)  # a limit for loaded machines: it trains, and follows code into an empty cache
    view = '{"name":"training-timeline","figure":3}'
    page.goto(f"{address}#{urlencode({'model': TOY, 'prompt': '3 7 9 5 3 7', 'view': view})}")
    page.wait_for_selector("#tokens [data-pos]")
    page.locator("#main-message button").first.click()
    page.wait_for_function("() => document.querySelector('#said')?.textContent.includes('checkpoints from step 0 to')")
    page.wait_for_selector("#main-figure .slider-container")
    page.screenshot(path=screenshots / "timeline.png")
    shown = "() => JSON.stringify(document.querySelector('#main-figure .js-plotly-plot').calcdata[0][0].z)"
    last = page.evaluate(shown)
    page.route("**/*", lambda route: route.abort())  # from here on nobody answers: what moves, moves by itself
    page.evaluate(
        "() => Plotly.animate(document.querySelector('#main-figure .js-plotly-plot'), ['0'],"
        " {mode: 'immediate', frame: {duration: 0, redraw: true}})"
    )
    page.wait_for_function(f"last => ({shown})() !== last", arg=last)


def test_routes_of_a_step_are_drawn_without_those_of_the_last(browser, tmp_path, monkeypatch):
    """Shapes of a frame are laid over those that are there one by one: what a step lacks must go. No server."""
    from probes import CATALOG, TrainingTimeline
    from workbench import load

    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    view = CATALOG.view("training-timeline")
    result = TrainingTimeline(seeds=1).run(load("toy:induction,length=24,d_model=16,steps=3,every=0,lr=0.05,step=0"))
    view.drawn(view.figures[4], result).write_html(tmp_path / "routes.html", auto_play=False)
    page = browser.new_context().new_page()
    page.set_default_timeout(300_000)
    page.goto((tmp_path / "routes.html").as_uri())
    page.wait_for_selector(".slider-container")
    drawn = page.evaluate(
        """async () => {
          const graph = document.querySelector('.js-plotly-plot'), found = [];
          const paths = shapes => shapes.filter(shape => shape.visible).map(shape => shape.path);
          for (const frame of graph._transitionData._frames) {
            const wanted = paths(frame.layout.shapes);
            await Plotly.animate(graph, [frame.name], {mode: 'immediate', frame: {duration: 0, redraw: true}});
            found.push([paths(graph._fullLayout.shapes), wanted]);
          }
          return found;
        }"""
    )
    assert len(drawn) == 4 and all(shown == wanted for shown, wanted in drawn)
    assert len({str(shown) for shown, _ in drawn}) > 1
