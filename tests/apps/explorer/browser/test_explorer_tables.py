"""A table as a researcher uses it: sorted, filtered, walked with the keys, clicked, taken away, in light and dark."""

import json
from urllib.parse import urlencode

import pytest

pytestmark = pytest.mark.browser

TABLE = 3  # which of the drawings of the head table is the table


@pytest.fixture(scope="module")
def table_page(shared):
    """One page for all tests of this module: opening it takes longer than all of them."""
    view = json.dumps({"name": "head-table", "figure": TABLE})
    page = shared("#" + urlencode({"model": "toy-induction", "prompt": "3 1 4 1 5 9 3 1", "view": view}), wait=False)
    page.wait_for_selector("#table .ag-row")
    return page


@pytest.fixture
def heads(table_page, shared):
    """The table of all heads of a toy, in its first order and in light."""
    page = table_page
    page.evaluate("index => dash_clientside.set_props('view', { data: { name: 'head-table', figure: index } })", TABLE)
    page.evaluate("() => dash_clientside.set_props('scheme', { data: 'light' })")
    page.evaluate("() => dash_clientside.set_props('notices', { data: [] })")
    page.wait_for_selector("#main-message:empty", state="attached")
    page.wait_for_selector("[data-mantine-color-scheme=light] #table .ag-row")
    wait_for_rest(page)
    page.evaluate(
        "() => { const grid = dash_ag_grid.getApi('table'); grid.setFilterModel(null); grid.deselectAll();"
        " grid.applyColumnState({ defaultState: { sort: null } }) }"
    )
    page.wait_for_selector("#table .ag-row")
    yield page
    shared.check()


def wait_for_rest(page) -> None:
    """Until the table is built as a whole, and the page says so."""
    page.wait_for_selector("#main-figure[aria-busy=false] #table-holder[aria-busy=false] #table .ag-row")


def shown(page) -> list[dict]:
    """The rows that the grid shows, in its order."""
    return page.evaluate(
        "() => { const rows = []; dash_ag_grid.getApi('table').forEachNodeAfterFilterAndSort(n => rows.push(n.data));"
        " return rows }"
    )


def test_a_table_is_sorted_filtered_and_taken_away_as_it_is_shown(heads):
    every = shown(heads)
    header = heads.locator(".ag-header-cell[col-id=induction_score] .ag-header-cell-label")
    header.click()
    header.click()
    heads.wait_for_function("() => document.querySelector('[col-id=induction_score][aria-sort=descending]')")
    scores = [row["induction_score"] for row in shown(heads)]
    assert scores == sorted(scores, reverse=True) and len(scores) == len(every) > 2
    heads.locator("[aria-label='layer Filter Input']:visible").fill("1")
    heads.wait_for_function("n => dash_ag_grid.getApi('table').getDisplayedRowCount() < n", arg=len(every))
    left = shown(heads)
    assert {row["layer"] for row in left} == {row["layer"] for row in every if row["layer"] >= 1}
    heads.get_by_role("button", name="Export").click()
    with heads.expect_download() as download:
        heads.get_by_role("menuitem", name="Data (CSV)").click()
    lines = download.value.path().read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["name", *[row["name"] for row in left]]


def test_a_row_selects_its_head_by_mouse_and_by_keys(heads):
    heads.locator("#table .ag-row[row-index='1'] .ag-cell").first.click()
    selected = "([layer, head]) => { const s = dash_clientside.spine.state.selection;"
    selected += " return s.layer === layer && s.head === head }"
    rows = shown(heads)
    heads.wait_for_function(selected, arg=[rows[1]["layer"], rows[1]["head"]])
    heads.keyboard.press("ArrowDown")  # the keys walk the table, not the tokens
    heads.keyboard.press("Space")
    heads.wait_for_function(selected, arg=[rows[2]["layer"], rows[2]["head"]])


def test_light_and_dark_leave_the_table_as_it_is(heads):
    heads.locator(".ag-header-cell[col-id=induction_score] .ag-header-cell-label").click()
    heads.wait_for_function("() => document.querySelector('[col-id=induction_score][aria-sort=ascending]')")
    heads.evaluate("() => { window.header = document.querySelector('#table .ag-header-cell') }")
    before = shown(heads)
    with heads.expect_response(lambda r: '"table-holder"' in (r.request.post_data or "")):
        heads.click("#scheme-toggle")
    heads.wait_for_selector("[data-mantine-color-scheme=dark] #table .ag-row")
    heads.wait_for_selector("#main-figure[aria-busy=false]")
    assert heads.evaluate("() => window.header.isConnected") and shown(heads) == before
    assert heads.locator("[col-id=induction_score][aria-sort=ascending]").count()


@pytest.mark.parametrize("dark", [False, True])
def test_a_table_can_be_read_by_everybody(heads, screenshots, dark):
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    if dark:
        heads.click("#scheme-toggle")
        heads.wait_for_selector("[data-mantine-color-scheme=dark] #table .ag-row")
        heads.wait_for_function("() => document.getAnimations().every(a => a.playState !== 'running')")  # colours fade
        wait_for_rest(heads)
    heads.screenshot(path=screenshots / f"table-{'dark' if dark else 'light'}.png")
    serious = [v for v in axe.run(heads).response["violations"] if v["impact"] in ("serious", "critical")]
    assert not serious, json.dumps([(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious], indent=1)


def test_a_table_has_no_picture_and_gives_way_to_figures(heads):
    heads.get_by_role("button", name="Export").click()
    heads.get_by_role("menuitem", name="Picture (PNG)").click()
    heads.wait_for_selector(".notice")
    assert "Take the table as CSV" in heads.inner_text(".notice")
    heads.get_by_text("entropy", exact=True).first.click()
    heads.wait_for_selector("#table", state="detached")
    heads.wait_for_selector("#main-figure .js-plotly-plot .nsewdrag")
