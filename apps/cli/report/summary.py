"""A result in a screenful of text: its sentence, its model, and what its variables hold."""

import textwrap
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.parameters import Values
from workbench.analysis.view import View
from workbench.figures.text import head_name, number, show_token
from workbench.storage.record import record_of
from workbench.words import counted

__all__ = ["WIDTH", "summary"]

WIDTH = 100
_ROWS = 12  # of a table that is printed whole; longer ones are for the page and for files
_TOKENS = 40
_CELL, _START = 60, 12  # characters of a text in such a table, and of its beginning
_NAMING = {"id", "position", "layer", "head"}  # units of numbers that name something: none is the largest
_YES_OR_NO = ("true or false", "0 or 1")  # units of variables that only say whether


def summary(view: View, result: xr.Dataset, display: Values | None = None) -> str:
    """A result in words: what it is of, what it found, and each variable with units, dims and where it is largest."""
    display = display or view.shown()
    lines = _about(view, result)
    if said := view.said(result, display.values()):
        lines += textwrap.wrap(said, WIDTH)
    for frame in (view.drawn(table, result, display=display) for table in view.tables):
        if len(frame) <= _ROWS and (printed := _printed(frame)) not in lines:  # a table may stand in for a later one
            lines.append(printed)
    sizes = ", ".join(f"{dim} {size}" for dim, size in result.sizes.items())
    lines.append(f"Variables (sizes: {sizes}):" if sizes else "Variables:")
    width = max((len(str(name)) for name in result.data_vars), default=0)
    lines += [f"  {name:<{width}}  {_line(result[name])}" for name in map(str, result.data_vars)]
    return "\n".join(lines)


def _printed(frame: Any) -> str:
    """A table in lines; of a text of many characters its beginning and its end, which is what is asked of a prompt."""
    is_long = lambda value: isinstance(value, str) and len(value) > _CELL
    short = lambda value: f"{value[:_START]} ... {value[_START + 5 - _CELL :]}" if is_long(value) else value
    texts = {name: list(map(short, frame[name])) for name in frame.columns if any(map(is_long, frame[name]))}
    return str(frame.assign(**texts).to_string(float_format="{:.3g}".format, na_rep="-"))


def _about(view: View, result: xr.Dataset) -> list[str]:
    """Analysis, model, interventions and tokens."""
    record = record_of(result)
    model = record.get("model", {})
    badge = f" ({model['badge']})" if model.get("badge") else ""
    lines = [f"{view.title} of {model.get('name', 'a model')}{badge}"]
    if changed := record.get("interventions"):
        lines += textwrap.wrap(f"With {', '.join(changed)}", WIDTH)
    ids = record.get("token_ids")
    if "token_text" in result.coords:
        texts = [show_token(str(text), html=False) for text in result["token_text"].values[:_TOKENS]]
        said: dict[Any, str] = {True: ", the first is BOS", False: ", without BOS"}
        bos = said.get(record.get("bos"), "")
        more = " ..." if result["token_text"].size > _TOKENS else ""
        lines.append(f"Tokens ({result['token_text'].size}{bos}): {' '.join(texts)}{more}")
    elif ids:
        lines.append(counted(len(ids), "token"))
    return lines


def _line(variable: xr.DataArray) -> str:
    """`(layer, head) probability: 0.001 to 0.98, median 0.02, largest at L18H6`."""
    about = f"({', '.join(map(str, variable.dims))}) {variable.attrs['units']}: " if variable.dims else ""
    values = variable.values
    if not values.size:
        return about + "none"
    if values.dtype.kind not in "fiub":
        some = values[(-1,) * (values.ndim - 1)][:6] if values.ndim else [values.item()]
        return about + ("last: " if values.ndim > 1 else "") + " ".join(show_token(str(v), html=False) for v in some)
    if values.dtype.kind == "i" and variable.attrs["valid_min"] >= 0:
        values = np.where(values < 0, np.nan, values.astype(float))
    if not variable.dims:
        return f"{number(float(values))} {variable.attrs['units']}"
    known = np.isfinite(values.astype(float))
    if not known.any():
        return about + "not applicable"
    low, high = number(float(values[known].min())), number(float(values[known].max()))
    missing = f", {1 - known.mean():.0%} not applicable" if not known.all() else ""
    if variable.attrs["units"] in _YES_OR_NO:
        more, fewer, n = (int(found.sum()) for found in (values[known] > 0, values[known] < 0, known))
        counts = f"{more} more and {fewer} fewer" if "difference" in variable.attrs else f"{more}"
        return f"{about}{counts} of {n}{missing}"
    if not _NAMING.isdisjoint(variable.attrs["units"].split()):
        return f"{about}{low} to {high}{missing}"
    at = tuple(map(int, np.unravel_index(int(np.argmax(np.where(known, values, -np.inf))), values.shape)))
    median = number(float(np.median(values[known])))
    return f"{about}{low} to {high}, median {median}, largest at {_place(variable, at)}{missing}"


def _place(variable: xr.DataArray, at: tuple[int, ...]) -> str:
    """`L18H6`, or `depth 30, pos 5`."""
    where = {dim: variable[dim].values[i] for dim, i in zip(variable.dims, at, strict=True)}
    words = [head_name(where.pop("layer"), where.pop("head"))] if {"layer", "head"} <= set(where) else []
    return ", ".join(words + [f"{dim} {value}" for dim, value in where.items()])
