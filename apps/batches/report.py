"""The report of a batch: one HTML page of tables, figures, spec, provenance and failures, which needs no network."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from apps.batches.figures import averaged, figures
from apps.template import render
from workbench.analysis.changes import place_of
from workbench.batch.runs import Batch
from workbench.batch.values import tables
from workbench.files import whole_file

__all__ = ["keep_report", "report", "write_report"]

_PROMPTS = 200  # shown in the report; an export has all
_MOST = 1 << 26  # bytes of a spec
_FIGURES = 6  # of one analysis; a page with all of them would not open


def write_report(found: Batch, path: Path) -> Path:
    """Write the report of a batch, of all that is there so far."""
    with whole_file(path) as partial:
        partial.write_text(report(found), encoding="utf-8")
    return path


def keep_report(found: Batch) -> str:
    """Write the report beside the run; where it is, for people."""
    found.store.write("report.html", report(found))
    return f"{found.store.title}/report.html"


def report(found: Batch) -> str:
    """The report as HTML; whatever a text holds is shown as text."""
    results = {name: found.aggregate(name) for name in found.analyses}
    prompts = tables.statuses(found.store, _PROMPTS)
    first = [True]
    sections = [_section(name, result, first) for name, result in results.items()]
    spec = found.store.read("spec.toml", _MOST)
    badges = " ".join(sorted({one["badge"] for one in found.record["models"] if one["badge"]}))
    provenance = [json.loads(result.attrs["provenance"]) for result in results.values()]
    return render(
        "batches/report.html",
        title=found.spec.name,
        done=found.n_done,
        shards=found.n_shards,
        failures=found.failures,
        badges=badges,
        sections=sections,
        prompts=prompts,
        n_prompts=sum(1 for line in found.store.prompts() if line["n"]),
        spec=json.dumps(found.record["spec"], indent=1) if spec is None else spec.decode(errors="replace"),
        provenance=json.dumps(provenance[0] if provenance else {}, indent=1, ensure_ascii=False),
    )


def _section(name: str, result: xr.Dataset, first: list[bool]) -> dict[str, Any]:
    drawn = []
    for figure in islice(figures(result), _FIGURES):
        drawn.append(figure.to_html(full_html=False, include_plotlyjs=first[0], config={"displaylogo": False}))
        first[0] = False
    return {
        "name": name,
        "summary": result.attrs["summary"],
        "rows": list(_rows(result)),
        "figures": drawn,
        "left_out": json.loads(result.attrs["left_out"]),
    }


def _rows(result: xr.Dataset) -> Iterator[dict[str, Any]]:
    """One row a variable, model and group: its mean over all axes and where it is largest in size."""
    for name in averaged(result):
        for model in result["model"].values:
            for group in result["group"].values:
                one = result[name].sel(model=model, group=group)
                n = result[f"{name}_n"].sel(model=model, group=group)
                if not np.isfinite(one.values).any():
                    continue
                yield {
                    "variable": name,
                    "units": one.attrs.get("units", ""),
                    "model": model,
                    "group": group,
                    "mean": f"{float(one.mean()):.4g}",
                    "largest": _largest(one, result, name),
                    "n": int(n.max()),
                }


def _largest(one: xr.DataArray, result: xr.Dataset, name: str) -> str:
    """The value of the largest size, where it is, and its interval: an effect below zero may be the largest."""
    at = {str(dim): int(index) for dim, index in abs(one).argmax(...).items()} if one.dims else {}
    beside = result[[f"{name}_low", f"{name}_high"]].sel(model=one["model"], group=one["group"]).isel(at)
    low, high = (float(end) for end in beside.data_vars.values())
    value = f"{float(one.isel(at)):.4g}" + (f" [{low:.4g}, {high:.4g}]" if np.isfinite(low) else "")
    return f"{', '.join(place_of(one, at))}: {value}" if at else value
