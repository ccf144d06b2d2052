"""The routes view in a browser: a slider without a job, edges and MLPs that answer a click, links that carry it all."""

import pytest

from tests.apps.explorer.browser.actions import run, selection, wait_for_title

pytestmark = pytest.mark.browser

# Where the middle of an edge stands on the screen, found by what its packed point stands for.
PLACE = """wanted => {
  const gd = document.querySelector('#main-figure .js-plotly-plot');
  const box = gd.getBoundingClientRect(), full = gd._fullLayout;
  for (const [curve, how] of Object.entries(gd.layout.meta.packed)) {
    if (how.also.part !== wanted.part) continue;
    const trace = gd._fullData[curve];
    for (let i = 0; i < trace.x.length; i++) {
      let rest = gd.data[curve].customdata[i];
      const found = { part: wanted.part };
      for (const [name, size] of how.sizes.slice().reverse()) {
        found[name] = rest % size - 1;
        rest = Math.floor(rest / size);
      }
      if (Object.entries(wanted).some(([name, value]) => found[name] !== value)) continue;
      const x = full.xaxis._offset + full.xaxis.d2p(trace.x[i]), y = full.yaxis._offset + full.yaxis.d2p(trace.y[i]);
      return [box.x + x, box.y + y];
    }
  }
}"""


@pytest.fixture
def routes(open_page):
    """The view, drawn."""
    page = open_page('#prompt=The+capital+of+France+is&view={"name":"flow-routes","figure":0}')
    wait_for_title(page, "#main-figure", "coverage 0.8")
    page.wait_for_function("() => 'head' in dash_clientside.spine.state.selection")  # the first one is chosen later
    page.wait_for_selector(".job", state="detached")  # nothing comes any more that moves what is clicked
    page.wait_for_selector("#main-figure[aria-busy=false]")
    return page


def click_edge(page, **wanted) -> None:
    """Click the middle of an edge."""
    at = page.evaluate(PLACE, wanted)
    page.mouse.move(5, 5)
    page.wait_for_selector("#main-figure .hoverlayer .hovertext", state="detached")
    page.mouse.move(*at)
    page.wait_for_selector("#main-figure .hoverlayer .hovertext", state="attached")
    page.mouse.click(*at)


def detail_titles(page) -> list[str]:
    """Titles of the figures beside the view."""
    return page.evaluate(
        "() => Array.from(document.querySelectorAll('#details .js-plotly-plot'), gd => gd.layout.title.text)"
    )


def wait_for_details(page, word: str) -> None:
    page.wait_for_function(
        "word => Array.from(document.querySelectorAll('#details .js-plotly-plot'))"
        ".some(gd => gd.layout && gd.layout.title.text.includes(word))",
        arg=word,
    )


def test_a_slider_moves_the_graph_without_a_run_and_a_link_carries_it(routes, open_page):
    routes.get_by_role("slider", name="by the edges that hold").focus()
    routes.keyboard.press("ArrowLeft")
    wait_for_title(routes, "#main-figure", "coverage 0.79")
    assert "coverage 0.79" in routes.inner_text("#said")
    assert routes.input_value("input[aria-label='by the edges that hold']") == "0.79"
    routes.click("input[aria-label='Explain the prediction at']")
    routes.get_by_role("option", name="3 ·of").click()
    wait_for_title(routes, "#main-figure", "token 3 ")
    other = open_page("#" + routes.url.partition("#")[2])
    wait_for_title(other, "#main-figure", "token 3 (coverage 0.79)")
    assert other.get_by_role("slider", name="by the edges that hold").get_attribute("aria-valuenow") == "0.79"
    other.wait_for_function("() => document.querySelector('input[aria-label^=Explain]').value === '3 ·of'")
    run(other, "Paris is the capital of")
    wait_for_title(other, "#main-figure", "token 5 (coverage 0.79)")  # a token of another text means nothing here
    assert other.input_value("input[aria-label='Explain the prediction at']") == ""
    other.wait_for_selector("#notice-list >> text=not kept for this one: start 3 (Information-flow routes)")


def test_a_finer_threshold_is_computed_and_said(routes):
    field = routes.locator("input[aria-label='or by all parts above a share of']")
    field.fill("0.0004")
    field.press("Tab")
    wait_for_title(routes, "#main-figure", "threshold 0.0004")
    assert "Kept are shares above 0.0004" in routes.inner_text("#said")
    routes.wait_for_function("() => decodeURIComponent(location.hash).includes('\"min_share\":0.0004')")


def test_a_click_shows_what_was_clicked(routes, screenshots):
    click_edge(routes, part="attention", layer=23, query=5, key=4)
    wait_for_details(routes, "Heads from 4 to 5 in layer 23")
    chosen = selection(routes)
    assert chosen["part"] == "attention" and (chosen["layer"], chosen["query"], chosen["key"]) == (23, 5, 4)
    wait_for_details(routes, f"L23H{chosen['head']}")  # its pattern and its shares side by side
    routes.screenshot(path=screenshots / "routes-edge.png")
    click_edge(routes, part="mlp", layer=26, pos=5)
    wait_for_details(routes, "Neurons of layer 26 at token 5")
    routes.screenshot(path=screenshots / "routes-mlp.png")
    routes.locator("#tokens [data-pos='4']").click()
    wait_for_details(routes, "token 4")
    assert detail_titles(routes) == ["Lens at depth 27, token 4"]
