"""A result on its way out: saved where it was asked for, then printed."""

import xarray as xr

from apps.cli.report.places import Places, write
from apps.cli.report.summary import summary
from workbench.analysis.parameters import Values
from workbench.analysis.results import save
from workbench.analysis.view import View

__all__ = ["deliver"]


def deliver(view: View, result: xr.Dataset, display: Values, places: Places) -> None:
    """Save first: whatever happens while printing, the result is there."""
    out, figure = places.of(view.name)
    saved = []
    if out:
        saved.append(f"Saved the result in {save(result, out)}")
    if figure:
        from apps.cli.report.page import page  # brings what makes pages, which most commands have no use for

        write(figure, page(view, result, display))
        saved.append(f"Saved its figures in {figure}")
    print("\n".join([summary(view, result, display), *saved]), flush=True)
