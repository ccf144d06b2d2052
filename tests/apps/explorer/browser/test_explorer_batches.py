"""The panel of batches in a browser: runs, results, the table of prompts, and a prompt that is opened from it."""

import json

import pytest

pytestmark = pytest.mark.browser

SPEC = {
    "name": "toys",
    "models": [{"name": "toy-induction"}],
    "prompts": [
        {"group": "typed", "ids": [[3, 1, 4, 1, 5, 9, 3, 1], [2, 7, 1, 8, 2, 7]]},
        {"group": "drawn", "generator": "repeated-tokens", "n": 17, "length": 5},
        {"group": "drawn longer", "generator": "repeated-tokens", "n": 1, "length": 6},  # a point of its own
    ],
    "analyses": [{"name": "induction-on-prompt"}, {"name": "attention-sinks"}],
}


@pytest.fixture(scope="module")
def runs_page(shared, explorer):
    """A page with the panel open, for all tests of this module; the run is resumed and looked at in the first."""
    from probes import CATALOG
    from workbench import batch

    batch.plan(SPEC, explorer.engine.batches.folder / "toys", catalog=CATALOG).write()
    page = shared("#model=toy-induction&prompt=4+4+4+4", wait=False)
    page.wait_for_selector("#tokens [data-pos]")
    page.click("#batches-open")
    page.wait_for_selector("[data-batch=toys]")
    return page


def test_a_run_is_followed_and_its_results_are_drawn_with_their_n(runs_page, explorer, screenshots):
    from probes import CATALOG
    from workbench import batch

    page = runs_page
    assert page.locator("[data-resume=toys]").count() == 1
    holds = "word => document.querySelector('#batch-body').textContent.includes(word)"
    page.wait_for_function(holds, arg="Nothing of it is there yet")
    batch.worker(explorer.engine.batches.folder / "toys", catalog=CATALOG)
    page.wait_for_selector("[data-resume=toys]", state="detached")
    page.wait_for_selector("#batch-body .js-plotly-plot .nsewdrag")
    page.wait_for_function(holds, arg="n = 17")
    page.screenshot(path=screenshots / "runs.png")


def test_a_row_of_the_table_opens_its_prompt(runs_page, screenshots):
    page = runs_page
    page.locator("#batch-part label").filter(has_text="Prompts").click()
    page.wait_for_selector("#batch-table .ag-row")
    page.click("#batch-x")
    page.get_by_role("option", name="n", exact=True).click()
    page.click("#batch-y")
    page.get_by_role("option", name="attention-sinks.sink_rate mean").click()
    page.wait_for_selector("#batch-scatter .js-plotly-plot .nsewdrag, #batch-scatter .nsewdrag")
    page.wait_for_selector("#batch-table .ag-row")
    page.screenshot(path=screenshots / "runs-prompts.png")
    page.locator("#batch-table .ag-row[row-index='1'] .ag-cell[col-id=text]").click()
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 6")
    assert page.input_value("#prompt") == "2 7 1 8 2 7"
    page.wait_for_selector("#batches .mantine-Modal-content", state="detached")
    view = "() => (new URLSearchParams(location.hash.slice(1)).get('view') || '').includes('induction-on-prompt')"
    page.wait_for_function(view)


def test_what_is_sorted_filtered_or_drawn_opens_what_it_shows(runs_page):
    """The place of a row on the screen is not its place in the run."""
    page = runs_page
    page.click("#batches-open")
    page.locator("#batch-part label").filter(has_text="Prompts").click()
    page.wait_for_selector("#batch-table .ag-row")
    page.locator("#batch-table .ag-floating-filter[col-id=group] input").first.fill("drawn")
    page.locator("#batch-table .ag-header-cell[col-id=text][role=columnheader]").click()
    page.wait_for_selector("#batch-table .ag-header-cell[col-id=text][aria-sort=ascending]")
    count = "n => document.querySelectorAll('#batch-table .ag-center-cols-container .ag-row').length === n"
    page.wait_for_function(count, arg=18)
    text = page.locator("#batch-table .ag-row[row-index='3'] .ag-cell[col-id=text]")
    shown = text.inner_text().replace("#", "")
    text.click()
    page.wait_for_selector("#batches .mantine-Modal-content", state="detached")
    page.wait_for_function("text => document.querySelector('#prompt').value === text", arg=shown)
    page.click("#batches-open")
    page.wait_for_selector("#batch-scatter .nsewdrag")  # the two columns of the test before
    drawn = "() => ((document.querySelector('#batch-scatter .js-plotly-plot') || {}).data || []).length === 2"
    page.wait_for_function(drawn)  # of what is filtered; the seventeen of one group lie on each other
    number, *point = page.evaluate(
        """() => { const gd = document.querySelector('#batch-scatter .js-plotly-plot');
        const last = gd.data.length - 1, at = gd.calcdata[last][0], drawn = gd._fullLayout;
        const box = gd.getBoundingClientRect();
        return [gd.data[last].customdata[0], box.x + drawn.xaxis._offset + drawn.xaxis.d2p(at.x),
                box.y + drawn.yaxis._offset + drawn.yaxis.d2p(at.y)] }"""
    )
    page.mouse.move(*point)
    page.wait_for_selector("#batch-scatter .hoverlayer .hovertext", state="attached")
    page.mouse.click(*point)
    page.wait_for_selector("#batches .mantine-Modal-content", state="detached")
    page.wait_for_function("() => document.querySelector('#prompt').value.split(' ').length === 13")
    assert number == 19 and page.input_value("#prompt") != shown


def test_the_report_is_opened_from_the_page_and_a_view_becomes_a_spec(runs_page, tmp_path):
    from probes import CATALOG
    from workbench import batch

    page = runs_page
    page.reload()  # whatever is open
    page.wait_for_selector("#tokens [data-pos]")
    page.click("#batches-open")
    with page.context.expect_page() as opened:
        page.click("#batch-report")
    opened.value.wait_for_selector(".js-plotly-plot .nsewdrag")
    assert "over 20 prompts" in opened.value.inner_text("body")
    opened.value.close()
    page.keyboard.press("Escape")
    page.wait_for_selector("#batches .mantine-Modal-content", state="detached")
    page.locator("[aria-haspopup=menu]").filter(has_text="Export").first.click()
    with page.expect_download() as download:
        page.click("[data-export=toml]")
    download.value.save_as(tmp_path / "view.toml")
    found = batch.run(tmp_path / "view.toml", tmp_path / "run", catalog=CATALOG)
    assert found.table()["text"][0].replace("#", "") == page.input_value("#prompt")


@pytest.mark.slow
def test_the_panel_can_be_read_by_everybody(runs_page):
    from axe_playwright_python.sync_playwright import Axe

    page = runs_page
    page.click("#batches-open")
    for part in ("Results", "Prompts", "Failures"):
        page.locator("#batch-part label").filter(has_text=part).click()
        page.wait_for_timeout(1500)
        found = Axe().run(page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, json.dumps([(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious], indent=1)
