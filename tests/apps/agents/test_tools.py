"""What an agent can ask of a desk: strict arguments, costs and limits beforehand, strict JSON, errors as sentences."""

import json
import threading

import pytest

from apps.agents.desk import MOST_NUMBERS, Desk
from apps.agents.tools import TOOLS, answer
from probes import CATALOG
from tests.tiny_models import INDUCTION, induction_toy
from workbench import load
from workbench.errors import Cancelled, InputError, RefusedError


@pytest.fixture(scope="module")
def desk():
    """Of a machine that takes a millisecond for a pass, whatever else this one does now."""
    made = Desk(lambda: load("toy-induction"), CATALOG)
    made.model()
    made._each = 0.001
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
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(desk, name, given, said):
    with pytest.raises(Exception, match=said) as caught:
        ask(desk, name, **given)
    assert isinstance(caught.value, InputError)


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
