"""`workbench explain`: what it says beforehand, saves and prints; and `--json` of the commands."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from apps.cli import main
from apps.cli.commands.explain import _done
from apps.cli.report.explanation import _table, explanation, numbers
from apps.cli.report.notebook import notebook
from probes.explain.explain import Explain
from probes.explain.sentences import unexplained
from tests.tiny_models import INDUCTION, induction_toy
from workbench.analysis.results import open_result
from workbench.errors import UnavailableError
from workbench.models.prompt import Prompt
from workbench.words import hundredths

IDS = ["5", "9", "13", "21", "30", "5"]
QUICK = ["--pairs", "3", "--tested", "5", "--model", "toy-induction"]


def test_it_says_its_cost_and_saves_report_notebook_and_result(tmp_path, capsys):
    names = [tmp_path / f"r.{ending}" for ending in ("html", "ipynb", "json")]
    out = [word for name in names for word in ("--out", str(name))]
    assert main(["explain", "--ids", *IDS, *QUICK, *out, "--json"]) == 0
    printed, said = capsys.readouterr()
    found = json.loads(printed)
    assert found["analysis"] == "explain" and found["saved"] == list(map(str, names)) and found["unexplained"]
    assert said.startswith("About ") and "survey" in said and "Ctrl+C" in said
    page = names[0].read_text(encoding="utf-8")
    assert found["summary"].split(".")[0][:40] in page and 'src="http' not in page
    assert page.index("<h2>What is not explained") < page.index("<h2>Details") < page.index("<summary>Provenance")
    assert json.loads(names[2].read_text())["variables"]["pair_clean"]["values"]
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(names[1], 4)
    nbformat.validate(book)
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    scope: dict = {}
    for source in code[:2]:  # computed again, and held against the report
        exec(source, scope)
    assert scope["result"].attrs["summary"] == found["summary"]


def test_what_is_to_be_known_of_an_answer_is_said_before_the_work():
    attrs = {"steps": '[{"what": "where", "done": false}]', "target": "Paris", "against": "Rome", "noted": "Mind."}
    assert _done(xr.Dataset(attrs=attrs)) == "'Paris' rather than 'Rome'. Mind."
    assert _done(xr.Dataset(attrs=attrs | {"steps": '[{"what": "where", "done": true}]'})) == "where"


@pytest.mark.parametrize("why", [UnavailableError("a full disk", "a place to write", "Choose another"), KeyError("x")])
def test_a_report_that_cannot_be_written_loses_no_work(tmp_path, capsys, monkeypatch, why):
    """A disk that fills behind minutes of work, or a mistake of ours: what was found is printed and kept elsewhere;
    other files are there."""

    def full(path, content):
        raise why

    monkeypatch.setattr("apps.cli.commands.explain.write_whole", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    names = [tmp_path / f"r.{ending}" for ending in ("html", "json")]
    out = [word for name in names for word in ("--out", str(name))]
    assert main(["explain", "--ids", *IDS, *QUICK, *out]) == 1
    printed, said = capsys.readouterr()
    (kept,) = (tmp_path / "temporary").iterdir()
    assert str(kept) in said.splitlines()[-1] and "Not explained: " in printed and str(names[1]) in printed
    assert open_result(kept).attrs["summary"] == json.loads(names[1].read_text())["summary"]


def test_what_is_missing_is_an_empty_cell_whatever_stands_for_it():
    """An MLP has no head: the table of parts holds whole numbers and pandas's own mark."""
    head = pd.array([4, None], dtype="Int64")
    frame = pd.DataFrame({"part": ["L1H4", "L1 MLP"], "head": head, "worth": [0.5, float("nan")], "said": ["a", None]})
    assert _table(frame.set_index("part"), xr.Dataset())["rows"] == [["L1H4", "4", "0.5", "a"], ["L1 MLP", "", "", ""]]


def test_what_a_report_holds_is_shown_as_text(tmp_path):
    result = Explain(pairs=3, tested=5).run(induction_toy(), Prompt.ids(INDUCTION))
    hostile = result.assign_attrs(shown_clean="<script>alert(1)</script> *a* `b`")
    page = explanation(hostile)
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page
    shares = [hundredths(float(result[name])) for name in ("faithfulness", "completeness", "holds")]
    assert [one[0] for one in numbers(result)] == shares
    mlps = [str(name) for name in result["part_name"].values if "MLP" in str(name)]
    assert np.isnan(result["part_head"].values).sum() == len(mlps) and "<td>-1</td>" not in page
    assert all(line in page or line.replace("'", "&#39;") in page for line in unexplained(result))
    assert '<th scope="col">of the pair&#39;s own difference that the circuit keeps (share)</th>' in page
    assert "<td>yes</td>" in page and "<td>True</td>" not in page
    cells = json.loads(notebook(hostile, {"name": "x"}))["cells"]
    assert "\\<script\\>" in "".join(cells[0]["source"])


def test_the_notebook_loads_the_number_format_of_the_report():
    """In another one the numbers of the report would not come out again."""
    result = Explain(pairs=3, tested=5).run(induction_toy(), Prompt.ids(INDUCTION))
    record = json.loads(result.attrs["provenance"])
    source = lambda: json.loads(notebook(result, {"name": "x", "device": "cpu"}))["cells"][2]["source"]
    assert "model = load(name='x', device='cpu')\n" in "".join(source())
    record["model"]["dtype"] = "bfloat16"
    result.attrs["provenance"] = json.dumps(record)
    made = "".join(source())
    assert "import torch\n" in made and "model = load(name='x', device='cpu', dtype=torch.bfloat16)\n" in made


def test_bad_words_are_refused_before_a_model_is_loaded(refused):
    assert "explain without a prompt or a task" in refused("explain")
    assert "one of them" in refused("explain", "--prompt", "a", "--task", "capital")
    assert "the task 'capitol'; expected one of indirect object," in refused("explain", "--task", "capitol")
    assert "or a file of pairs" in refused("explain", "--task", "nothing-here.csv")
    assert "whose ending" in refused("explain", "--prompt", "a", "--out", "r.docx")
    assert "--anwser" in refused("explain", "--prompt", "a", "--anwser", "b")
    assert "twice" in refused("explain", "--prompt", "a", "--answer", "b", "--target", "c")


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["load", "toy-induction"], {"identity", "sizes", "selfcheck"}),
        (["list", "--long"], {"analyses"}),
        (["describe", "explain", "logit-lens"], {"analyses"}),
        (["models"], {"models"}),
        (["models", "check", "gpt2"], {"models"}),
        (["mcp"], {"tools"}),
    ],
)
def test_json_is_one_line_with_the_documented_keys(capsys, words, keys):
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and set(json.loads(out, parse_constant=pytest.fail)) == keys
