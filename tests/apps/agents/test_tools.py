"""What an agent can ask of a desk: strict arguments, costs and limits beforehand, strict JSON, errors as sentences."""

import json
import threading

import numpy as np
import pytest
import xarray as xr

from apps.agents.desk import MOST_NUMBERS, Desk, numbers
from apps.agents.tools import TOOLS, answer
from probes import CATALOG
from tests.tiny_models import INDUCTION, induction_toy
from workbench import load
from workbench.analysis.pace import SHORT, Pace
from workbench.errors import Cancelled, InputError, RefusedError


@pytest.fixture(scope="module")
def desk():
    """Of a machine that takes a millisecond for a pass, whatever else this one does now."""
    made = Desk(lambda: load("toy-induction"), CATALOG)
    made.model()
    made._pace = Pace(0.0, 0.001 / SHORT)
    return made


def ask(desk, tool, /, **given):
    said = answer(desk, tool, given, threading.Event())
    json.dumps(said, allow_nan=False)
    return said


def test_every_tool_has_a_strict_schema():
    names = [tool.name for tool in TOOLS]
    assert {"list_analyses", "describe_analysis", "run_analysis", "observe", "check", "compare", "explain"} <= set(
        names
    )
    for tool in TOOLS:
        assert tool.schema["additionalProperties"] is False and set(tool.required) <= set(tool.properties)
        assert tool.about.endswith(".") or tool.about.endswith("?")


def test_from_the_list_to_a_value(desk):
    listed = ask(desk, "list_analyses")["analyses"]
    assert {one["name"] for one in listed} == set(CATALOG.names)
    described = ask(desk, "describe_analysis", name="logit-lens")
    assert described["limits"] and "top_k" in [one["name"] for one in described["parameters"]]
    assert ask(desk, "predict_cost", name="logit-lens", prompt=[5, 9, 13, 5])["seconds"] > 0
    said = ask(desk, "run_analysis", name="logit-lens", prompt=[5, 9, 13, 5], params={"top_k": 3})
    assert said["summary"] and said["params"]["top_k"] == 3
    values = ask(desk, "read_values", result=said["result"], variable="entropy", where={"depth": 2})
    assert (values["dims"] == ["pos"] and len(values["values"]) == 1) or len(values["values"]) == 4
    pattern = ask(desk, "observe", prompt=[7, 5, 9, 13, 5], hook="pattern", layer=1, where={"head": 0, "query": 4})
    assert pattern["dims"] == ["key"] and sum(pattern["values"]) == pytest.approx(1, abs=1e-5)
    assert pattern["values"][2] > 0.9  # the token behind the last 5
    other = ask(desk, "run_analysis", name="logit-lens", prompt=[5, 9, 13, 9], params={"top_k": 3})
    assert ask(desk, "compare", before=said["result"], after=other["result"])["summary"]


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("no_such", {}, "the tool 'no_such'"),
        ("run_analysis", {"name": "logit-lens", "promt": "a"}, "the argument 'promt' of run_analysis"),
        ("run_analysis", {}, "run_analysis without name"),
        ("run_analysis", {"name": "logit-lens", "params": {"topk": 3}, "prompt": [5]}, "the parameter 'topk'"),
        ("run_analysis", {"name": "logit-lens", "prompt": 5}, "prompt=5"),
        ("observe", {"prompt": [5, 9], "hook": "pattern", "layer": True}, "layer=True"),
        ("observe", {"prompt": [5, 9], "hook": "no_hook", "layer": 0}, "the hook 'no_hook'"),
        ("observe", {"prompt": [5, 9], "hook": "pattern", "layer": 7}, "layer 7"),
        ("observe", {"prompt": [*range(40), *range(20)], "hook": "resid_pre", "layer": 0}, "numbers of resid_pre"),
        ("read_values", {"result": "lens-9", "variable": "entropy"}, "the result 'lens-9'"),
        ("explain", {"task": "no such task"}, "no such task"),
        ("explain", {"prompt": [5], "answer": "a", "params": {"target": "b"}}, "target twice"),
        ("check", {"units": "L1H0", "prompt": [5], "params": {"units": "L0H0"}}, "units twice"),
        ("observe", {"prompt": [5, 9], "hook": "pattern", "layer": 0, "where": {"head": True}}, "head=True of pattern"),
        ("observe", {"prompt": [5, 9], "hook": "mlp_out", "layer": 0}, "Got observe, which needs mlp_out"),
        ("run_analysis", {"name": "logit-lens", "prompt": [5], "seconds": float("nan")}, "seconds=nan"),
        ("run_analysis", {"name": "logit-lens", "prompt": [5], "seconds": 10**400}, "seconds=1000"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(desk, name, given, said):
    with pytest.raises(Exception, match=said) as caught:
        ask(desk, name, **given)
    assert isinstance(caught.value, InputError)


def test_arguments_that_are_none(desk):
    """As a client sends them that knows no schema."""
    with pytest.raises(InputError, match="an object of arguments by name"):
        answer(desk, "list_analyses", "all of them", threading.Event())


@pytest.mark.parametrize("value", [None, True, {"start": 0}, [[0]], [True, False], [None], 0.5, -1, "zz", [0, 99]])
@pytest.mark.parametrize("variable", ["entropy", "label_free"])
def test_places_that_are_none_are_said(value, variable):
    """Of dims whose coordinates are numbers, and of those that have none."""
    dims = {"entropy": "depth", "label_free": "edge"}
    variable_, dim = xr.DataArray([1.0, 2.0, 3.0], dims=dims[variable], name=variable), dims[variable]
    if variable == "entropy":
        variable_ = variable_.assign_coords({dim: [0, 1, 2]})
    with pytest.raises(InputError, match=f"{dim}=.* of {variable}; expected one or a list of 0, 1, 2"):
        numbers(variable_, {dim: value})


def test_places_by_their_names_come_with_what_is_known_of_them():
    table = xr.DataArray(
        [[1.0, np.nan], [3.0, 4.0]], dims=("group", "component"), name="effect",
        coords={"group": ["a", "b"], "component": [0, 1], "label": ("component", ["L0H1", "L1 MLP"])},
    )  # fmt: skip
    said = numbers(table, {"group": "a", "component": [1, 0]})
    assert said["values"] == [None, 1.0] and said["dims"] == ["component"]
    assert said["coords"] == {"component": [1, 0], "label": ["L1 MLP", "L0H1"], "group": "a"}
    with pytest.raises(InputError, match="group='c' of effect; expected one or a list of 'a', 'b'"):
        numbers(table, {"group": "c"})


def test_the_cost_of_every_analysis_can_be_asked_for(desk):
    for name in CATALOG.names:
        assert ask(desk, "predict_cost", name=name, prompt=[5, 9, 13, 5])["seconds"] > 0, name


def test_a_prompt_that_is_not_used_is_said(desk):
    said = ask(desk, "run_analysis", name="induction-heads", prompt=[5, 9])
    assert said["notes"] == ["induction-heads makes its own stimulus; the prompt is not used."]
    assert ask(desk, "run_analysis", name="logit-lens", prompt=[5, 9])["notes"] == []


def test_what_is_kept_is_bounded_in_bytes(desk, monkeypatch):
    monkeypatch.setattr("apps.agents.desk._BYTES", 1000)
    held = Desk(lambda: load("toy-induction"), CATALOG)
    names = [held.keep("x", xr.Dataset({"a": ("b", np.zeros(100))})) for _ in range(3)]
    assert list(held.results) == names[-1:]


def test_what_takes_too_long_is_refused_before_it_runs(desk):
    with pytest.raises(RefusedError, match=r"will take about .* at most 0"):
        ask(desk, "run_analysis", name="head-survey", params={"on": "repeated tokens"}, seconds=0)
    assert MOST_NUMBERS < 10_000


def test_a_call_that_is_given_up_stops(desk):
    gone = threading.Event()
    gone.set()
    with pytest.raises(Cancelled):
        answer(desk, "run_analysis", {"name": "attribution-patching", "prompt": [5, 9, 13, 5]}, gone)


def test_explain_is_a_tool():
    desk = Desk(induction_toy, CATALOG)
    said = ask(desk, "explain", prompt=list(INDUCTION), params={"pairs": 3, "tested": 5}, seconds=1e6)
    assert said["analysis"] == "explain" and said["unexplained"]
