"""What is printed and saved about analyses and their results."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from apps.cli import main
from apps.cli.report.description import description
from apps.cli.report.page import page
from apps.cli.report.places import Places
from apps.cli.report.summary import _printed, summary
from probes import CATALOG
from workbench import dataset, load
from workbench.analysis.compare import difference
from workbench.errors import InputError


def test_the_page_is_safe_whatever_the_tokens_say():
    view = CATALOG.view("logit-lens")
    result = view.analysis().run(load("toy-induction"), [5, 9, 13, 5])
    evil = "</script><script>alert(1)</script>\x1b[31m"
    result = result.assign_coords(token_text=("pos", [evil] * result.sizes["pos"]))
    result["top_text"].values[...] = evil
    assert "<script>alert(1)" not in page(view, result)
    assert "\x1b" not in summary(view, result)


def test_the_summary_says_where_it_is_largest():
    values = [[0.1, 0.2], [0.9, float("nan")]]
    result = dataset(None, score=("layer head", np.array(values), "probability", (0, 1)))
    text = summary(CATALOG.view("logit-lens"), result)
    assert "score  (layer, head) probability: 0.1 to 0.9, median 0.2, largest at L1H0, 25% not applicable" in text


@pytest.mark.parametrize("units", ["true or false", "0 or 1"])
def test_of_a_yes_or_no_it_is_counted(units):
    result = dataset(None, chosen=("layer head", np.array([[1, 0], [1, 0]], dtype=np.int8), units, (0, 1)))
    line = f"chosen  (layer, head) {units}: 2 of 4"
    assert line in [said.strip() for said in summary(CATALOG.view("logit-lens"), result).splitlines()]


def test_of_a_difference_of_them_both_ways_are_counted():
    """What ceased to be was "0 of 4"."""
    both = [
        dataset(None, chosen=("layer head", np.array(values, dtype=np.int8), "0 or 1", (0, 1)))
        for values in ([[1, 1], [1, 0]], [[0, 0], [1, 1]])
    ]
    text = summary(CATALOG.view("logit-lens"), difference(*both))
    assert "chosen  (layer, head) 0 or 1: 1 more and 2 fewer of 4" in text


@pytest.mark.parametrize("units", ["position", "head", "layer", "token id"])
def test_a_number_that_names_something_has_no_median(units):
    result = dataset(None, place=("edge", np.array([3, 0, 5]), units, (0, None)))
    text = summary(CATALOG.view("logit-lens"), result)
    assert f"place  (edge) {units}: 0 to 5" in text and "median" not in text


def test_a_table_that_stands_in_for_another_is_printed_once():
    """Of an explanation without a circuit its pairs were printed twice."""
    pairs = lambda result: pd.DataFrame({"pair": ["one", "two"]})
    result = dataset(None, score=("", 1.0, "probability", (0, 1)))
    text = summary(replace(CATALOG.view("logit-lens"), tables=(pairs, pairs), details=()), result)
    assert text.count("two") == 1


def test_a_small_table_is_printed_whole(capsys):
    """The toy's moved prompt leaves no gap to be faithful to: numbers are missing, and it is said why."""
    words = ["run", "circuit-evaluation", "--model", "toy-induction", "--ids", "3", "9", "27", "14", "3", "9"]
    assert main([*words, "--param", "target=#27", "--param", "against=#50"]) == 0
    out = capsys.readouterr().out
    assert "nothing to be faithful to" in out and "faithfulness at 5%" in out
    rows = [line for line in out.splitlines() if line.startswith(("attribution", "activation", "direct", "routes"))]
    assert len(rows) == 4 and all(set(row.split()[-5:]) == {"-"} for row in rows)


def test_a_long_prompt_in_a_table_is_shown_by_its_ends():
    """A row of two prompts of 100 tokens was 900 characters wide in every terminal."""
    long = "The capital of France is Paris. " * 20 + "So it is"
    first, second = _printed(pd.DataFrame({"clean": [long, "a"], "n": [0.25, np.nan]})).splitlines()[1:]
    assert first.startswith("0  The capital  ... ") and first.endswith("So it is 0.25") and second.endswith("-")
    assert len(first) == len(second) < 80


@pytest.mark.parametrize("words", [["describe", "logit-lens"], ["run", "logit-lens", "--help"]])
def test_an_analysis_is_described_with_its_parameters(capsys, words):
    try:
        code = main(words)
    except SystemExit as leave:
        code = leave.code
    out = capsys.readouterr().out
    assert code == 0
    assert "Limits: " in out and "top_k=10  (int, 1 to 100)" in out


def test_a_description_says_all_that_the_fields_say():
    for view in CATALOG.views:
        said = " ".join(description(view).split())
        assert said.startswith(f"{view.name}: {view.title} (") and view.question in said
        for text in (view.analysis.definition, view.analysis.limits, view.analysis.source, view.analysis.returns):
            assert " ".join(text.split()) in said
        for parameter in (*view.analysis.parameters(), *view.display_parameters):
            assert f" {parameter.name}=" in said and " ".join(parameter.help.split()) in said
            assert all(str(choice) in said for choice in parameter.choices)


def test_several_are_described(capsys):
    assert main(["describe", "logit-lens", "flow-routes"]) == 0
    out = capsys.readouterr().out
    assert "logit-lens: Logit lens (needs a prompt)" in out and "flow-routes: " in out
    assert "(--top-k VALUE" not in out and "(--positions VALUE, or --param positions=VALUE)" in out


def test_files_of_one_analysis_and_folders_of_several(tmp_path):
    one = Places("a/lens.nc", None, ["logit-lens"])
    assert list(map(str, filter(None, one.of("logit-lens")))) == ["a/lens.nc"]
    both = Places("a", "b", ["logit-lens", "flow-routes"])
    assert list(map(str, both.of("flow-routes"))) == ["a/flow-routes.nc", "b/flow-routes.html"]
    Places(str(tmp_path), None, ["logit-lens", "flow-routes"]).need_writable()  # a folder that is there
    with pytest.raises(InputError, match="a directory"):
        Places(str(tmp_path)).need_writable()
    with pytest.raises(InputError, match="a folder"):
        Places("x.nc", None, ["logit-lens", "flow-routes"]).need_writable()
