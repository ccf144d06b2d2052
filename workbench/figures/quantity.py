"""What a variable measures and how that is drawn: its numbers, its label, its colour scale and range."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.figures.text import number, show_text
from workbench.figures.theme import SCALES

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["coloraxis", "flags", "interval_text", "label", "numbers", "on_scale", "pick", "pick_scale", "units"]

ColorRange = tuple[float, float] | str | None

_SAME = 1e-3  # a difference below is rounding, and no colour may make a pattern of it


def pick(result: "xr.Dataset", variable: str) -> "xr.DataArray":
    """A variable of a result; an unknown name is refused with the names there are."""
    if not hasattr(result, "data_vars"):
        raise InputError(f"a {type(result).__name__} to draw", "a result, a Dataset", "Give what run() returns")
    if variable not in result:
        names = ", ".join(map(str, result.data_vars))
        raise InputError(f"variable {variable!r}", f"one of {names}", "Draw one of these")
    return result[variable]


def numbers(array: "xr.DataArray") -> np.ndarray:
    """Float64 values with NaN for missing, also where integers mark missing by a number (`absent`)."""
    values = np.asarray(array.values, dtype=np.float64)
    fill = array.attrs.get("absent", array.attrs.get("_FillValue"))  # netCDF's own, in files of other programs
    return values if fill is None else np.where(values == fill, np.nan, values)


def flags(array: "xr.DataArray") -> np.ndarray:
    """Booleans; a missing flag (NaN, or the fill value of integers) is not set."""
    return numbers(array) > 0


def label(array: "xr.DataArray") -> str:
    """`Entropy (nats)`: long name and units, escaped; the name where there is no long name."""
    name, unit = str(array.attrs.get("long_name") or array.name), units(array)
    return f"{show_text(name)} ({unit})" if unit and unit not in name else show_text(name)


def units(array: "xr.DataArray") -> str:
    """The unit, escaped; empty for a bare number."""
    unit = str(array.attrs.get("units", ""))
    return "" if unit in ("1", "unitless", "none") else show_text(unit)


def pick_scale(array: "xr.DataArray", scale: str | None) -> str:
    """The named scale, or the one that the declared range calls for: signed, share (0 to 1) or amount.

    A difference of two results is signed, whatever its figure names.
    """
    if array.attrs.get("difference"):
        return "signed"
    if scale is not None:
        if scale not in SCALES:
            raise InputError(f"scale={scale!r}", f"one of {', '.join(SCALES)}", "Name one of these or leave it out")
        return scale
    low, high = (float(array.attrs.get(name, np.nan)) for name in ("valid_min", "valid_max"))
    if low < 0:
        return "signed"
    return "share" if (low, high) == (0, 1) else "amount"


def on_scale(values: np.ndarray, scale: str) -> np.ndarray:
    """What is drawn for the values: their log10 on the "log" and "rank" scales, where zero and below become NaN."""
    if scale not in ("log", "rank"):
        return values
    return np.log10(np.where(values > 0, values, np.nan))


def coloraxis(z: np.ndarray, array: "xr.DataArray", scale: str, color_range: ColorRange) -> dict[str, Any]:
    """Plotly's colour axis for the drawn values `z` of a variable; a range of the data is taken over the `z` given.

    color_range: (low, high) in the variable's units, "data" for what is there, or None for the declared range where it
    is finite.
    """
    low, high = _range(z, array, scale, color_range)
    colorbar: dict[str, Any] = {"title": {"text": units(array) or label(array)}}
    if scale in ("log", "rank"):
        ticks = _log_ticks(low, high)
        colorbar |= {"tickvals": np.log10(ticks).tolist(), "ticktext": [number(tick) for tick in ticks]}
    return {"cmin": low, "cmax": high, "colorbar": colorbar}


def interval_text(result: "xr.Dataset", array: "xr.DataArray") -> np.ndarray:
    """For every entry of a variable `0.71 [0.65, 0.78]`, with null and q where the result has them; one string each."""
    texts = np.array([number(v) for v in numbers(array).ravel()], dtype=object).reshape(array.shape)
    known = ~np.isnan(numbers(array))

    def companion(ending: str) -> np.ndarray | None:
        name = f"{array.name}_{ending}"
        return numbers(result[name].broadcast_like(array).transpose(*array.dims)) if name in result else None

    low, high = companion("low"), companion("high")
    parts: list[tuple[np.ndarray, str, tuple[np.ndarray, ...]]] = []
    parts += [] if low is None or high is None else [(~np.isnan(low), " [{}, {}]", (low, high))]
    for ending, form in (("null", "<br>null {}"), ("q", "<br>q = {}")):
        found = companion(ending)
        parts += [] if found is None else [(~np.isnan(found), form, (found,))]
    for there, form, values in parts:
        for index in map(tuple, np.argwhere(there & known)):
            texts[index] += form.format(*(number(value[index]) for value in values))
    return texts


def _range(z: np.ndarray, array: "xr.DataArray", scale: str, color_range: ColorRange) -> tuple[float, float]:
    is_log = scale in ("log", "rank")
    if array.attrs.get("difference"):
        color_range = "data"  # a small change must be seen; the declared range is that of the numbers themselves
    if isinstance(color_range, tuple):
        low, high = color_range
        return (float(np.log10(low)), float(np.log10(high))) if is_log else color_range
    finite = z[np.isfinite(z)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if scale == "rank":
        low = 0.0  # rank 1, which is always the end of the scale
    if not is_log and color_range is None:
        declared = [float(array.attrs.get(name, np.nan)) for name in ("valid_min", "valid_max")]
        low, high = (d if np.isfinite(d) else end for d, end in zip(declared, (low, high), strict=True))
    if scale == "signed":
        high = max(abs(low), abs(high), _SAME if array.attrs.get("difference") else 0.0)
        low = -high
    return (low, high) if high > low else (low, low + 1.0)


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two log10 ends; 1, 2 and 5 of each where they span less than two decades."""
    inner = (1, 2, 5) if high - low < 2 else (1,)
    decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in inner]
    return [tick for tick in ticks if low - 1e-9 <= np.log10(tick) <= high + 1e-9]
