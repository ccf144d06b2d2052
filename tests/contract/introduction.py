"""What an analysis says of itself: its texts, its parameters, its cost, whether it asks for a prompt."""

import inspect
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.case import Case
from workbench.analysis.kinds import Analysis, OnModel, OnPrompt, Study
from workbench.analysis.view import named
from workbench.errors import InputError
from workbench.models import selfcheck


def bad_values(parameter: Any) -> list[Any]:
    """What a parameter must refuse."""
    bad: list[Any] = [object(), [parameter.default]]
    if not parameter.optional:
        bad.append(None)
    if parameter.low is not None:
        bad.append(parameter.type(parameter.low - 1))
    if parameter.high is not None:
        bad.append(parameter.type(parameter.high + 1))
    if parameter.type is float:
        bad.append(float("nan"))
    if parameter.type in (int, float):
        bad += ["3", True]
    if parameter.choices and parameter.type is str and not parameter.files:
        bad.append("no such choice")
    return bad


def introduces_itself(case: Case) -> None:
    """Name, texts, a question, and functions that are found again by dotted path."""
    view, kind = case.view, case.view.analysis
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", view.name) and kind.name == view.name and kind.owner == view.name
    for text in (view.title, kind.source, kind.limits, kind.definition, view.question):
        assert len(text.strip()) >= 5
    assert view.question.endswith("?") and issubclass(kind, OnPrompt | OnModel | Study)
    known = {value for key, value in vars(selfcheck).items() if key.isupper() and isinstance(value, str)}
    assert set(kind.requires) <= known
    drawing = (*view.figures, *view.details, *view.tables, *view.claims, *filter(None, [view.sentence]))
    for function in drawing:  # found again by whoever runs it elsewhere
        assert "<" not in function.__qualname__ and function.__doc__


def parameters_check_themselves(case: Case) -> None:
    """Each has a help and refuses what it must, before any model is looked at; the defaults may be used."""
    kind = case.view.analysis
    for parameter in kind.parameters():
        if parameter.name == "seed":  # what every generator takes, one more included
            assert parameter.low == 0 and parameter.high is not None and parameter.high < 2**63 - 1
        assert parameter.help and kind().values()[parameter.name] == parameter.default
        for bad in bad_values(parameter):
            with pytest.raises(InputError, match=f"Got {parameter.name}="):
                kind.of({parameter.name: bad})
    with pytest.raises(InputError, match=f"'no_such_parameter' for {case.view.name}"):
        kind.of({"no_such_parameter": 1})
    assert kind() == kind() and hash(kind()) == hash(kind())


def display_parameters_are_for_what_is_drawn(case: Case) -> None:
    """Each is taken by something that draws, and is no parameter of what computes."""
    view = case.view
    drawing = [*view.figures, *view.details, *view.tables, *view.claims, *filter(None, [view.sentence])]
    own = {parameter.name for parameter in view.analysis.parameters()}
    for parameter in view.display_parameters:
        assert parameter.help and parameter.name not in own
        assert any(named(function, {parameter.name: None}) for function in drawing), parameter.name
        with pytest.raises(InputError, match=f"the parameter '{parameter.name}' for {view.name}"):
            view.analysis.of({parameter.name: parameter.default})
        for bad in bad_values(parameter):
            with pytest.raises(InputError, match=f"Got {parameter.name}="):
                view.split({parameter.name: bad})
    taken = {name for function in drawing for name in _by_name_only(function)}
    assert taken <= {parameter.name for parameter in view.display_parameters}, "drawn with what nobody can give"


def _by_name_only(function: Callable) -> set[str]:
    found = inspect.signature(function).parameters.values()
    return {p.name for p in found if p.kind is p.KEYWORD_ONLY and p.default is p.empty}


def predicts_its_cost(case: Case) -> None:
    """A finite number above nothing, and no less work for a longer prompt; what has passes of its own says how many."""
    short, long = (n * case.analysis.cost(case.model.sizes, n) for n in (8, 24))
    assert 0 <= short <= long < math.inf
    assert case.analysis.shares_pass or type(case.analysis).cost is not Analysis.cost
    assert all(-24 <= position < 24 for position in case.analysis.read_positions(24))


def asks_for_a_prompt(case: Case) -> None:
    """What depends on the prompt says that it needs one; what does not, runs without."""
    if case.analysis.prompted:
        with pytest.raises(InputError, match=f"{case.view.name} without a prompt"):
            case.analysis.run(case.model)
    else:
        assert json.loads(case.result.attrs["provenance"])["token_ids"] is None or case.prompt is None
