"""The panel of batches: what is drawn of a run, how one goes on, and prompts that are opened from its table."""

import time

import numpy as np
import pytest

from apps.explorer.callbacks import batches as calls
from apps.explorer.engine.batches import Batches, Cell
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page import batches as panel
from apps.explorer.web.server import make_app
from probes import CATALOG
from workbench import batch
from workbench.errors import InputError

IDS = [[4, 33, 50, 33, 12, 7, 4, 33], [5, 6, 7, 5, 6, 7], [9, 8, 9, 8, 9, 8, 9]]
SPEC = {
    "name": "toy",
    "models": [{"name": "toy-induction"}],
    "prompts": [
        {"group": "odd", "ids": IDS},
        {"group": "drawn", "generator": "repeated-tokens", "n": 20, "length": 6},
        {"group": "refused", "ids": [[1, 10**6], [5, 5, 5]]},
    ],
    "analyses": [{"name": "induction-on-prompt"}, {"name": "attention-sinks", "params": {"epsilon": 0.4}}],
    "interventions": ["L0H0"],
    "limits": {"shard_tokens": 150},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that is done and one that is only planned, by the names "done" and "planned"."""
    home = tmp_path_factory.mktemp("runs")
    batch.run(SPEC, home / "done", catalog=CATALOG)
    batch.plan(SPEC, home / "planned", catalog=CATALOG).write()
    return home


@pytest.fixture(scope="module")
def engine(folder):
    made = Engine(Settings(models=("toy-induction",), runs=folder), CATALOG)
    assert made.hosted("toy-induction").loading.finished.wait(120)
    yield made
    made.close()


def texts(part):
    """All words of a component."""
    return " ".join(str(one) for one in _words(part))


def _words(part):
    if isinstance(part, list | tuple):
        for one in part:
            yield from _words(one)
    elif isinstance(part, str):
        yield part
    elif part is not None:
        yield from _words(getattr(part, "children", None))


def test_runs_are_listed_with_what_is_done_and_what_can_be_done(engine):
    said = {name: texts(panel.batch_list([engine.batches.known(name)], name, "")) for name in engine.batches.names()}
    n = batch.open(engine.batches.folder / "done").n_shards
    assert said["done"] == f"done {n} of {n} shards, 1 failure" and n > 1
    assert said["planned"] == f"planned Resume 0 of {n} shards, 1 failure"
    assert "workbench batch run" in texts(panel.batch_list([], "", "runs"))


def test_a_run_that_cannot_be_read_says_why_and_the_others_are_shown(folder, tmp_path):
    for name, content in (("broken", "{"), ("newer", '{"format": 99}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text(content)
    runs = Batches(tmp_path, begin=None)
    assert {name: "newer version" in runs.known(name).sentence for name in runs.names()} == {
        "broken": False, "newer": True,
    }  # fmt: skip
    assert "damaged plan.json" in runs.known("broken").sentence
    for name in ("../done", "", "none"):
        with pytest.raises(InputError, match="one of the list"):
            runs.open(name)


def test_partial_results_say_their_n_and_follow_the_ledger(folder, tmp_path, monkeypatch):
    runs = Batches(tmp_path, begin=None)
    batch.plan(SPEC, tmp_path / "half", catalog=CATALOG).write()
    empty = runs.aggregate("half", "attention-sinks", "sink_rate")
    assert panel.variables_of("attention-sinks", empty) == []
    store = batch.open(tmp_path / "half").store
    asked = []

    def stop(status):
        if status.done == 1 and not asked:
            asked.append(store.cancel())

    with pytest.raises(Exception, match="stop"):
        batch.worker(tmp_path / "half", catalog=CATALOG, progress=stop)
    result = runs.aggregate("half", "attention-sinks", "sink_rate")
    assert 0 < result["n_prompts"].sum() < 24
    figures = panel.results_of(result, "sink_rate", False)
    done = int(result["sink_rate_n"].sel(group="drawn").max())
    titles = [graph.figure.layout.title.text for graph in figures[-1].children]
    assert any(f"drawn, toy-induction, n = {done}" in title for title in titles)
    assert runs.aggregate("half", "attention-sinks", "sink_rate") is result  # nothing has changed: it is not made again
    whole = batch.open(tmp_path / "half").aggregate("attention-sinks")
    assert set(result.data_vars) < set(whole.data_vars)  # what is drawn alone is what is drawn among the others
    for name in result.data_vars:
        np.testing.assert_allclose(result[name], whole[name], rtol=1e-12, err_msg=name)
    store.go_on()
    batch.worker(tmp_path / "half", catalog=CATALOG)
    assert runs.aggregate("half", "attention-sinks", "sink_rate")["n_prompts"].sum() == 24


class Thread:
    """Stands for the process of a resumed run."""

    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code


def test_a_resumed_run_works_until_its_process_ends_and_says_how_it_ended(tmp_path):
    begun = []
    runs = Batches(tmp_path, lambda folder, network: begun.append((folder, network)) or Thread(None), True)
    batch.plan(SPEC, tmp_path / "one", catalog=CATALOG).write()
    runs.resume("one")
    runs.resume("one")  # a second press begins nothing
    assert begun == [(tmp_path / "one", True)] and runs.known("one").works
    assert "starting" in texts(panel.batch_list([runs.known("one")], "one", ""))
    runs._processes["one"].code = 1
    (tmp_path / "one" / "resume.log").write_text("55%: something\nworkbench: Got no space; expected some. Make room.\n")
    known = runs.known("one")
    assert not known.works and known.sentence == "It stopped: Got no space; expected some. Make room."
    runs.cancel("one")
    assert batch.open(tmp_path / "one").store.cancelled and runs.known("one").sentence == ""
    failing = Batches(tmp_path, lambda folder, network: (_ for _ in ()).throw(OSError("no more processes")))
    failing.resume("one")
    assert failing.known("one").sentence == "no more processes"


@pytest.mark.slow
def test_a_resumed_run_is_a_process_that_comes_to_its_end(tmp_path):
    from apps.explorer.engine.batches import begin

    batch.plan(SPEC, tmp_path / "one", catalog=CATALOG).write()
    runs = Batches(tmp_path, begin)
    runs.resume("one")
    while runs.known("one").works:
        time.sleep(0.2)
    known = runs.known("one")
    assert known.state.done == known.state.shards and known.sentence == ""


def test_the_table_is_sorted_by_its_numbers_grouped_and_drawn(engine):
    table = engine.batches.table("done", (1, 0))
    assert len(table) == 24 and table["status"].eq("done").all()
    own = "induction-on-prompt.induction_score L1H0"
    rows = batch.open(engine.batches.folder / "done").rows("induction-on-prompt")
    np.testing.assert_array_equal(table[own], rows["induction_score"].sel(layer=1, head=0))
    assert {"n", own} <= set(panel.columns_of(table)) and "text" not in panel.columns_of(table)
    means = panel.grouped(table, "group").set_index("group")
    assert means.loc["drawn", "prompts"] == 20 and means.loc["odd", "n"] == pytest.approx((8 + 6 + 7) / 3)
    parts = panel.prompt_table(table, "prompt", "n", own, False)
    figure = next(part.figure for part in parts if getattr(part, "id", "") == "batch-scatter")
    points = {row for trace in figure.data for row in trace.customdata}
    known = table[own].notna()
    assert points == set(table.index[known]) and len(figure.data) == table[known]["group"].nunique()
    grid = parts[-1].children
    assert grid.id == "batch-table" and [row["row"] for row in grid.rowData] == list(range(24))
    assert panel.prompt_table(table, "group", None, None, False)[-1].children.id == "batch-means"


def test_a_group_without_a_value_is_named(engine):
    """Where nothing is drawn a reader cannot tell whether nothing was computed."""
    found = batch.open(engine.batches.folder / "done").aggregate("induction-on-prompt")
    found["induction_score"] = found["induction_score"].where(found["group"] != "odd")
    assert "There is no value in odd, refused." in texts(panel.results_of(found, "induction_score", False))
    assert "no value" not in texts(panel.results_of(found, "n_repeats", False))


def test_numbers_stand_beside_their_prompt(engine):
    shown = panel.prompt_table(engine.batches.table("done"), "prompt", None, None, False)[-1].children
    fields = [column["field"] for column in shown.columnDefs]
    assert fields[:3] == ["group", "text", "n"] and fields[-4:] == ["status", "where", "document", "model"]
    assert shown.columnDefs[2]["headerName"] == "tokens" and fields[3].startswith("induction-on-prompt.")


@pytest.mark.parametrize("row", [0, 2, 3, 22, 23])
def test_a_row_opens_its_prompt_with_the_parameters_and_interventions_of_the_run(engine, row):
    cell = engine.batches.cell("done", row)
    link = calls.link_of(engine, cell)
    request = engine.request(link["model"], link["text"], link["params"], False, link["edits"])
    assert request.tokens.ids == cell.ids and [str(edit) for edit in request.edits] == ["L0H0"]
    assert request.analyses["attention-sinks"].epsilon == 0.4
    found = engine.batches.table("done").iloc[row]
    assert len(cell.ids) == found["n"]
    assert row > 2 or list(cell.ids) == IDS[row]
    answer = calls.opened(engine, "done", row, ())
    assert answer["link"]["text"] == link["text"] and answer["opened"] is False
    assert "notices" in calls.opened(engine, "done", 24, ())


def test_a_prompt_of_a_model_that_is_not_offered_says_so(engine):
    with pytest.raises(InputError, match="--also"):
        calls.link_of(engine, Cell("somebody/elses", "", (1, 2)))


def test_the_report_is_a_page_without_this_ones_rights(engine):
    client = make_app(engine).server.test_client()
    answer = client.get("/batches/done/report.html")
    policy = answer.headers["Content-Security-Policy"]
    assert answer.status_code == 200 and "induction_score" in answer.text
    assert policy.startswith("sandbox allow-scripts") and "allow-same-origin" not in policy
    assert client.get("/batches/none/report.html").status_code == 400
    (link,) = [part for part in calls.report_line(engine, "a #1? 50%") if getattr(part, "id", "") == "batch-report"]
    assert link.href == "/batches/a%20%231%3F%2050%25/report.html"
    assert "'unsafe-inline'" not in client.get("/").headers["Content-Security-Policy"].split("style-src")[0]
