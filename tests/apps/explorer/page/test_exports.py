"""What is taken away says the same as what was seen, and holds no surprise for a spreadsheet or a browser."""

import io
import json
import zipfile

import numpy as np
import pytest

from apps.explorer.callbacks.export import take, take_difference
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page.exports import csv
from apps.explorer.page.news import request_of
from apps.explorer.page.results import result_of
from apps.explorer.page.state import Seen, Shown, Sizes
from tests.tiny_analyses import tiny_view
from workbench.analysis.compare import difference_figure
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.results import dataset, open_result
from workbench.errors import InputError
from workbench.storage.tables import guarded

MODEL = "toy-induction"


@pytest.fixture(scope="module")
def engine():
    from probes import CATALOG

    entries = [CATALOG.view(name) for name in ("logit-lens", "induction-on-prompt", "induction-heads")]
    made = Engine(Settings(models=(MODEL,)), entries)
    assert made.hosted(MODEL).loading.finished.wait(60)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shown(engine):
    asked = {"model": MODEL, "text": "3 7 9 5 3 7 9", "params": {"logit-lens": {"top_k": 3}}}
    run = Shown(id="run", **asked, tokens=("#3",), sizes=Sizes(n_layers=2, n_heads=1))
    assert engine.submit(request_of(engine, run), "me").finished.wait(60)
    return run


SELECTION = {"layer": 1, "head": 0, "pos": 6}
VIEWS = [("logit-lens", 0), ("logit-lens", 2), ("surprisal", 1), ("induction-on-prompt", 0), ("attention", 0)]


@pytest.mark.parametrize(("name", "index"), VIEWS)
def test_the_code_makes_the_same_figure(engine, shown, name, index, monkeypatch):
    import plotly.graph_objects as go

    monkeypatch.setattr(go.Figure, "show", lambda self: None)
    code, _ = take(engine, "py", shown, Seen(name=name, figure=index), SELECTION, False, "me")
    scope = {}
    exec(compile(code.decode(), "exported", "exec"), scope)
    html, _ = take(engine, "html", shown, Seen(name=name, figure=index), SELECTION, False, "me")
    seen = engine.views[name].figures[index](found(engine, shown, name))
    assert json.loads(scope["figure"].to_json()) == json.loads(seen.to_json())
    assert html.decode().startswith("<!doctype html>")
    assert '"remove":["sendChartToCloud"]' in html.decode()  # no button that sends the figure away


def test_the_code_loads_the_number_format_of_the_page(tiny_dir, monkeypatch):
    """In another one it would give other numbers than the figure that it says it makes."""
    import plotly.graph_objects as go

    from probes import CATALOG

    monkeypatch.setattr(go.Figure, "show", lambda self: None)
    name = str(tiny_dir)
    half = Engine(Settings(models=(name,), dtype="bfloat16"), [CATALOG.view("logit-lens")])
    try:
        assert half.hosted(name).loading.finished.wait(60)
        run = Shown(id="run", model=name, text="ab ab ab", tokens=("a",), sizes=Sizes(n_layers=2, n_heads=4))
        other = run.model_copy(update={"edits": ("L0H0",)})
        for one in (run, other):
            assert half.submit(request_of(half, one), "me").finished.wait(60)
        seen = Seen(name="logit-lens", figure=0)
        drawn = {}
        for code, _ in (
            take(half, "py", run, seen, {}, False, "me"),
            take_difference(half, "py", (run, other), seen, {}, False, "me"),
        ):
            exec(compile(code.decode(), "exported", "exec"), drawn)
        assert drawn["model"].identity.dtype == "bfloat16"
        kept = found(half, run, "logit-lens")
        np.testing.assert_array_equal(drawn["result"]["entropy"], kept["entropy"])
        np.testing.assert_array_equal(drawn["before"]["entropy"], kept["entropy"])
    finally:
        half.close()


@pytest.mark.parametrize("name", ["logit-lens", "attention", "induction-on-prompt"])
def test_the_code_of_a_difference_makes_the_same_figure(engine, shown, name, tmp_path, monkeypatch):
    import plotly.graph_objects as go

    monkeypatch.setattr(go.Figure, "show", lambda self: None)
    without = shown.model_copy(update={"edits": ("L0H0 mean", "6 cannot see 2")})
    job = engine.submit(request_of(engine, without), "me")
    assert job is None or job.finished.wait(60)
    runs, view = (shown, without), Seen(name=name, figure=0)
    code, _ = take_difference(engine, "py", runs, view, SELECTION, False, "me")
    scope = {}
    exec(compile(code.decode(), "exported", "exec"), scope)
    path = tmp_path / "change.nc"
    path.write_bytes(take_difference(engine, "nc", runs, view, SELECTION, False, "me")[0])
    seen = difference_figure(engine.views[name], open_result(path))
    drawn = scope["figure"]
    np.testing.assert_allclose(drawn.data[0].z, seen.data[0].z, atol=1e-6)
    assert np.nanmax(np.abs(np.asarray(seen.data[0].z, dtype=float))) > 0
    assert drawn.layout.coloraxis.cmin == -drawn.layout.coloraxis.cmax
    title = drawn.layout.title.text
    assert title == f"{seen.layout.title.text}: this run minus the intact one"
    page = take_difference(engine, "html", runs, view, SELECTION, False, "me")[0].decode()
    assert json.dumps(title)[1:-1] in page


def found(engine, shown, name):
    request = request_of(engine, shown)
    if name in engine.slices:
        return engine.of_layer(request, engine.slice_of(request, name, SELECTION), "me")
    return engine.found(request, name)


@pytest.mark.parametrize(("pos", "first"), [(39, 24), (5, 0), (20, 16)])
def test_the_code_reads_the_tokens_that_are_drawn(engine, monkeypatch, pos, first):
    """Of a long prompt the page reads those around the selected token, and the code read the last ones."""
    import plotly.graph_objects as go

    monkeypatch.setattr(go.Figure, "show", lambda self: None)
    text, at = " ".join(str(3 + i % 13) for i in range(40)), {**SELECTION, "pos": pos}
    runs = [
        Shown(id=text, model=MODEL, text=text, params={}, tokens=("#3",), sizes=Sizes(n_layers=2, n_heads=1))
        for text in (text, text.replace("7", "9"))
    ]
    for run in runs:
        if job := engine.submit(request_of(engine, run), "me"):
            assert job.finished.wait(60)
    seen, scopes = Seen(name="logit-lens", figure=2), []
    of_both = take_difference(engine, "py", tuple(runs), seen, at, False, "me")
    for code, _ in (take(engine, "py", runs[0], seen, at, False, "me"), of_both):
        scopes.append({})
        exec(compile(code, "exported", "exec"), scopes[-1])
    made, shown = scopes[0]["result"], result_of(engine, runs[0], "logit-lens", at, "me")[0]
    assert shown["pos"].values.tolist() == list(range(first, first + 16))
    np.testing.assert_allclose(made["entropy"], shown["entropy"], atol=1e-6)
    assert made.attrs["summary"] == shown.attrs["summary"]
    assert all(list(scopes[1][name]["pos"].values) == list(shown["pos"].values) for name in ("before", "after"))
    batch, _ = take(engine, "toml", runs[0], seen, at, False, "me")
    assert b"positions" not in batch  # it is for other prompts, which may be shorter


@pytest.mark.parametrize("name", ["logit-lens", "induction-heads", "attention"])
def test_a_view_becomes_a_batch_of_the_same(engine, shown, name, tmp_path):
    from probes import CATALOG
    from workbench import batch

    run = shown.model_copy(update={"edits": ("L0H0",)})
    taken, file = take(engine, "toml", run, Seen(name=name, figure=0), SELECTION, False, "me")
    (tmp_path / file).write_bytes(taken)
    made = batch.plan(tmp_path / file, tmp_path / "run", catalog=CATALOG, base=tmp_path)
    (asked,) = made.planned.spec.analyses
    request = request_of(engine, run)
    wanted = engine.slice_of(request, name, SELECTION) if name in engine.slices else request.analyses[name]
    assert CATALOG.get(asked.name).of(dict(asked.params)) == wanted
    assert made.planned.spec.interventions == ("L0H0",)
    ids = [shard.ids and tuple(shard.ids) for shard in made.planned.left]
    assert ids == [(request.tokens.ids,)] if wanted.prompted else ids == [None]


@pytest.mark.parametrize("text", ['a "quoted" \\ text\nof 2 lines\x7f\x00', "\U0001f600 {} [[x]] # no comment", " "])
def test_texts_and_parameters_survive_a_spec(text, tmp_path):
    from types import SimpleNamespace

    from apps.explorer.page.specs import spec_text
    from probes import ActivationPatching
    from workbench.batch.spec import read_spec

    tokens = SimpleNamespace(source=SimpleNamespace(text=text), ids=(1, 2))
    request = SimpleNamespace(model="some/model", text=text, tokens=tokens, edits=(), dtype="bfloat16", carried=())
    analysis = ActivationPatching(corrupt=text + ".", target="x")
    (tmp_path / "a.toml").write_text(spec_text(request, analysis, Settings(models=(), held=True)), "utf-8")
    spec = read_spec(tmp_path / "a.toml").spec
    assert spec.prompts[0].texts == (text,) and spec.models[0].dtype == "bfloat16"
    assert ActivationPatching.of(dict(spec.analyses[0].params)) == analysis


def test_prompts_are_quoted_in_code():
    from apps.explorer.engine.request import Request
    from apps.explorer.page.exports import code
    from workbench.models.prompt import Prompt, Tokens

    text = 'a"\'\\\n"""); import os; os.remove("x") #'
    tokens = Tokens((1,), ("a",), False, Prompt(text))
    view = tiny_view(OnPrompt, "x", {"needs": len, "analyse": len}, fields={"p": (str, "q'")}, figures=(guarded,))
    lines = code(view, Request("m'", text, tokens, {}, {}, {}), view.analysis(), 0, {})
    import ast

    calls = [node for node in ast.walk(ast.parse(lines)) if isinstance(node, ast.Call)]
    run = next(call for call in calls if getattr(call.func, "attr", "") == "run")
    made = run.func.value
    assert ast.literal_eval(run.args[1]) == text and ast.literal_eval(made.keywords[0].value) == "q'"


def test_netcdf_opens_as_the_same_result(engine, shown, tmp_path):
    content, name = take(engine, "nc", shown, Seen(name="logit-lens", figure=0), {}, False, "me")
    (tmp_path / name).write_bytes(content)
    assert open_result(tmp_path / name).equals(found(engine, shown, "logit-lens"))


def test_tables_are_guarded_against_formulas():
    cells = ["=1+1", "+x", "-y", "@z", "\tq", "plain", ""]
    assert [guarded(c) for c in cells] == ["'=1+1", "'+x", "'-y", "'@z", "'\tq", "plain", ""]
    assert guarded(-1.5) == -1.5
    result = dataset(
        word=("pos", np.array(["=cmd()", "ok"], dtype=object), "text", None),
        score=("pos", np.array([-1.0, 2.0]), "nats", None),
    )
    content, ending = csv(result)
    assert ending == "csv" and "'=cmd()" in content.decode() and "-1.0" in content.decode()


def test_different_dims_become_different_tables():
    result = dataset(a=("pos", np.ones(2), "nats", None), b=("layer head", np.ones((2, 3)), "nats", None))
    content, ending = csv(result)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert ending == "csv.zip" and sorted(archive.namelist()) == ["layer_head.csv", "pos.csv"]
        assert len(archive.read("layer_head.csv").decode().splitlines()) == 7


def test_token_text_cannot_leave_its_script():
    import plotly.graph_objects as go

    from apps.explorer.page.exports import html
    from workbench.figures import show_token

    figure = go.Figure(go.Bar(x=[1], y=[1], hovertext=[show_token("</script><img src=x onerror=alert(1)>")]))
    evil = "</script><img src=x onerror=alert(1)>"
    result = dataset(a=("pos", np.ones(2), "nats", None)).assign_attrs(summary=evil)
    result.attrs["provenance"] = json.dumps({"prompts": [evil], "model": {"name": evil}})
    page = html(figure, result, evil)
    assert "<img src=x" not in page and page.count("</script>") == page.count("<script")


def test_a_page_that_is_taken_away_says_what_it_is_of(engine, shown):
    content, _ = take(engine, "html", shown, Seen(name="logit-lens", figure=0), {}, False, "me")
    result = found(engine, shown, "logit-lens")
    assert b"Prompt: " in content and MODEL.encode() in content
    assert result.attrs["summary"].split(",")[0].split("'")[0].encode() in content


def test_a_figure_hands_the_browser_what_its_picture_says(engine, shown):
    from apps.explorer.callbacks.figure import shown_result

    result = found(engine, shown, "logit-lens")
    figure, _, said = shown_result(engine.views["logit-lens"], result, 0, False, {})
    lines = figure.layout.meta["caption"]
    assert any(MODEL in line for line in lines) and lines[0].startswith("Prompt: ") and said
    assert "axes" in figure.layout.meta  # what a click needs stays


def test_what_is_not_there_is_not_exported(engine, shown):
    with pytest.raises(InputError, match="no result yet"):
        take(engine, "csv", shown, Seen(name="induction-heads", figure=0), {}, False, "me")
    with pytest.raises(InputError, match="'exe'"):
        take(engine, "exe", shown, Seen(name="logit-lens", figure=0), {}, False, "me")
