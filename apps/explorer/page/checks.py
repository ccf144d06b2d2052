"""What the open view claims of the selection, and the buttons that test it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from dash import html

from apps.explorer.engine.engine import Engine
from apps.explorer.page.attributes import attributes
from workbench.analysis.view import Claim
from workbench.errors import WorkbenchError

__all__ = ["buttons", "change_of", "claims_of", "made_so_far", "params_for"]

_CHANGE = "change-and-see"
SMALL = 0.05  # p at which the sentence of a check says that a unit matters more than its like


def claims_of(
    engine: Engine,
    results: Mapping[str, xr.Dataset],
    selection: Mapping[str, Any],
    display: Mapping[str, Mapping[str, Any]],
) -> list[Claim]:
    """The claims of the views whose results are given, in their order, each title once.

    display: display parameters by view. Claims whose study is not offered are left out.
    """
    found: dict[str, Claim] = {}
    for name, result in results.items():
        try:
            claimed = engine.views[name].claimed(result, selection, display.get(name))
        except WorkbenchError:  # a display that the result does not hold: the view itself says so
            continue
        except Exception:  # a mistake in one claim must not take the page with it
            logging.getLogger("workbench.explorer").exception("claims of %s failed", name)
            continue
        for claim in claimed:
            if claim.study in engine.standing:
                found.setdefault(claim.title, claim)
    return list(found.values())


def change_of(engine: Engine, units: Sequence[str]) -> list[Claim]:
    """What turns to the study that changes the selected unit and shows how the text goes on; none where none is there.

    units: what the selection names, the narrowest first.
    """
    if not units or _CHANGE not in engine.standing:
        return []
    return [Claim(f"Change {units[0]} and see", {"units": units[0]}, study=_CHANGE)]


def buttons(claims: list[Claim]) -> list[html.Button]:
    """One button for every claim, which tells what it will run."""
    return [
        html.Button(
            claim.title,
            title=", ".join(f"{name}={value}" for name, value in claim.params.items()),
            className="plain",
            **attributes({"data-check": claim.title}),
        )
        for claim in claims
    ]


def made_so_far(result: xr.Dataset, n: int) -> str:
    """How many checks of this prompt were made, this one among them, and what that makes of its p (Bonferroni)."""
    if "p_floor" not in result or n < 1:
        return ""
    said = "This is the only check made on this prompt so far." if n == 1 else f"Checks made on this prompt: {n}."
    floor, p = float(result["p_floor"]), float(result["p"])
    if n == 1 or floor != floor:
        return said
    corrected, least = min(1.0, n * p), min(1.0, n * floor)
    lost = " (among so many it is not shown)" if p <= SMALL < corrected else ""  # what the sentence itself says is so
    return (
        f"{said} Corrected for all of them, its p is {corrected:.2g}{lost}, and the smallest that its "
        f"{result.sizes['draw']} controls can give is {least:.2g}."
    )


def params_for(claims: list[Claim], title: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """The params with the study of a claim turned to it, and the study's name; None where nothing claims that now."""
    claim = next((claim for claim in claims if claim.title == title), None)
    return None if claim is None else ({**params, claim.study: dict(claim.params)}, claim.study)
