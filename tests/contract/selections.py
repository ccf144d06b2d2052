"""What a view says of a selection: claims that can be tested, and an answer or nothing to whatever is selected."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations
from typing import Any

from tests.contract.case import LONG, SELECTION, Case
from workbench.analysis.kinds import Analysis
from workbench.analysis.view import Claim, View
from workbench.errors import WorkbenchError
from workbench.models.prompt import tokenise

PARTS = (None, "attention", "mlp")  # what was clicked of a lattice
OUTSIDE = (-1, 10_000, None)  # of any range, as a link may say, and what another view left empty


def claims_are_of_what_is_shown(case: Case) -> None:
    """Each has a title and parameters that its study takes; claims about a selection need one."""
    from probes import CATALOG
    from workbench.intervene import units_of

    for claim in case.view.claimed(case.result, SELECTION):
        analysis, _ = CATALOG.view(claim.study).split(claim.params)
        assert claim.title.strip() and analysis.name == claim.study
        units = units_of(str(analysis.values().get("units", "")))
        assert units or claim.study != "causal-check"
        for unit in units:
            unit.check(case.model)
            assert all(getattr(unit, at, 0) < len(LONG.token_ids) for at in ("pos", "query", "key"))


class Watched(dict):
    """A selection that keeps which of its names were looked for."""

    def __init__(self, chosen: Mapping[str, Any], looked_for: set[str]) -> None:
        super().__init__(chosen)
        self.looked_for = looked_for

    def get(self, name: str, default: Any = None) -> Any:
        """As a dict; the name is kept."""
        self.looked_for.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.looked_for.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.looked_for.add(str(name))
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        self.looked_for |= set(self)  # all of them
        return super().__iter__()

    def keys(self) -> Any:
        """As a dict; all are looked for."""
        self.looked_for |= set(super().keys())
        return super().keys()


def selections(answer: Callable[[Mapping[str, Any]], Any]) -> Iterator[dict[str, Any]]:
    """Every subset of what a function looks for in a selection, each value outside its range, and the first of it."""
    asked: set[str] = set()
    for part in PARTS:
        for chosen in ({}, SELECTION):
            answer(Watched({**chosen, "part": part} if part else chosen, asked))
    names = sorted(asked & set(SELECTION))
    for part in PARTS if "part" in asked else PARTS[:1]:
        more = {"part": part} if part else {}
        full = {name: SELECTION[name] for name in names} | more
        for size in range(len(names) + 1):
            yield from ({name: SELECTION[name] for name in some} | more for some in combinations(names, size))
        for name in names:
            yield from (full | {name: value} for value in (*OUTSIDE, 0))
    if "depth" in names:
        yield {name: SELECTION[name] for name in names} | {"depth": 0.5}  # between attention and MLP


def any_selection_is_answered(case: Case) -> None:
    """Part of what a detail or a claim needs, or what the result has not: a figure or a claim, or None. Never another
    thing, and nothing that the model or the prompt does not have."""
    for detail in case.view.details:
        draw = partial(case.view.drawn, detail, case.result)
        for selection in selections(draw):
            drawn = draw(dict(selection))
            assert drawn is None or hasattr(drawn, "to_json"), selection
    for claim in case.view.claims:
        speak = partial(case.view.drawn, claim, case.result)
        for selection in selections(speak):
            _holds(case, speak(dict(selection)), selection)
    if case.view.follow is not None:
        ask = partial(case.view.follow, case.analysis)
        for selection in selections(ask):
            _follows(case, ask(dict(selection)), selection)


def _holds(case: Case, claim: Claim | None, selection: dict[str, Any]) -> None:
    """The units of a claim are the model's, and its positions the prompt's where the result is of a prompt."""
    from workbench.intervene import units_of

    assert claim is None or isinstance(claim, Claim), selection
    ids = json.loads(case.result.attrs["provenance"])["token_ids"]
    for unit in units_of(str(claim.params.get("units", ""))) if claim else ():
        unit.check(case.model)
        places = [getattr(unit, name, None) for name in ("pos", "query", "key")] + [claim.params.get("pos")]
        assert ids is None or all(place < len(ids) for place in places if place is not None), (selection, claim)


def _follows(case: Case, followed: Any, selection: dict[str, Any]) -> None:
    """What is recomputed for a selection can say what it needs, or says in a sentence why there is nothing."""
    tokens = tokenise(case.model, LONG)
    for view, analysis in followed:
        assert isinstance(view, View) and isinstance(analysis, Analysis), selection
        try:
            assert analysis.needs(case.model, tokens)
        except WorkbenchError as reason:
            assert str(reason).startswith("Got "), selection
