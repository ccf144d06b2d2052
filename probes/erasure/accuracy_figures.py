"""Figures of accuracy by depth: last tokens of words held against a control, and how much more they lose."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr

from probes.erasure.contrasts import CONTROLS
from probes.erasure.readout import SHOWN
from workbench.analysis.parameters import Choice, Values
from workbench.analysis.results import dataset
from workbench.analysis.view import reads
from workbench.errors import InputError

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Display", "accuracy_figure", "drop_figure"]

_RANDOM = ", random weights"
_PLACES = {0: "itself", -1: "before", -2: "two before", -3: "three before"}
_NAMES = {"others": "others", "frequency-matched": "others, same frequencies", "type-matched": "same types elsewhere"}
_OF = {"last": "", "last, typed": ", of types found elsewhere too"}


class Display(Values):
    """What of a result is drawn."""

    owner: ClassVar[str] = "drawing token-erasure-accuracy"

    against: Annotated[str, Choice((*CONTROLS, "all")), "the control beside them, or all groups"] = "type-matched"
    offset: Annotated[int, Choice(SHOWN), "which token the probes name; 0 is the token itself"] = -1


@reads("token-erasure-accuracy")
def accuracy_figure(result: xr.Dataset, *, against: str = Display.against, offset: int = Display.offset) -> "go.Figure":
    """Accuracy by depth of last tokens of words and of one control, and of both on random weights where they were run.

    against: the control, or "all" groups of the model in one picture. offset: which token the probes name.
    """
    from workbench.figures import series

    part = _of_offset(result, offset)
    title = f"How often probes name the token {_PLACES[offset]}"
    if against == "all":
        return series(part, "probe_accuracy", "depth", by="group", title=title)
    shown = _held_against(part, against)
    title += f": last tokens of words{_OF[CONTROLS[against]]}"
    figure = series(shown, "probe_accuracy", "depth", by="group", title=title).update_traces(connectgaps=True)
    figure.update_yaxes(title_text="share of held-out tokens")
    for name in shown["group"].values.tolist():
        if name.endswith(_RANDOM):  # two depths, too far apart for a band
            own = shown.sel(group=name)
            up, down = (abs(own[f"probe_accuracy{end}"] - own["probe_accuracy"]).values for end in ("_high", "_low"))
            bars = {"type": "data", "array": up, "arrayminus": down, "thickness": 1, "width": 4}
            figure.update_traces(error_y=bars, selector={"name": name})
    return figure


def _of_offset(result: xr.Dataset, offset: int) -> xr.Dataset:
    known = result["offset"].values.tolist()
    if offset not in known:
        raise InputError(f"offset {offset}", f"one of {', '.join(map(str, known))}", "Run it again with far=True")
    return result.sel(offset=offset, drop=True)


def _held_against(part: xr.Dataset, control: str) -> xr.Dataset:
    """`probe_accuracy` (depth, group) of the last tokens and one control, then of both on random weights."""
    groups = [CONTROLS[control], control]
    names = ["last tokens", _NAMES[control]]
    found = []
    for ending, behind in (("", ""), ("_random", _RANDOM)):
        if f"probe_accuracy{ending}" in part:
            ends = {f"probe_accuracy{ending}{end}": f"probe_accuracy{end}" for end in ("", "_low", "_high")}
            one = part[list(ends)].rename(ends).sel(group=groups)
            found.append(one.assign_coords(group=[name + behind for name in names]))
    return xr.concat(found, "group")


@reads("token-erasure-accuracy")
def drop_figure(result: xr.Dataset, *, offset: int = Display.offset) -> "go.Figure":
    """Excess drop of the model, of random weights, and of the one above the other, against every control.

    Where an interval holds 0 the contrast is not shown by this text. offset: which token the probes name.
    """
    from workbench.figures import bars

    part = _of_offset(result, offset)
    names = {"excess_drop": "the model", "excess_drop_random": "random weights", "excess_over_random": "difference"}
    ends, rows, labels = ("", "_low", "_high"), [], []
    for control in part["component"].values.tolist():
        for name, said_so in names.items():
            if name in part:
                rows.append([float(part[f"{name}{end}"].sel(component=control)) for end in ends])
                labels.append(f"{control}, {said_so}")
    spec = ("share of tokens", (-4, 4), f"excess drop, depth {result.attrs['early']} to {result.attrs['late']}")
    columns: dict[str, Any] = {f"excess_drop{end}": ("rank", np.array(rows)[:, i], *spec) for i, end in enumerate(ends)}
    title = f"Excess drop at last tokens of words, offset {offset}; an interval with 0 in it shows nothing"
    return bars(dataset(**columns), "excess_drop", "rank", labels=labels, title=title)
