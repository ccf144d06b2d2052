"""How a result is kept and drawn: files, figures and tables."""

import tempfile
from pathlib import Path

import pandas as pd
import xarray as xr

from tests.contract.case import SELECTION, Case
from workbench.analysis.results import open_result, save

MEGABYTE = 1_000_000


def saved_and_opened_it_is_the_same(case: Case) -> None:
    """Numbers, labels, provenance and units; integers stay integers."""
    with tempfile.TemporaryDirectory() as folder:
        opened = open_result(save(case.result, Path(folder) / f"{case.view.name}.nc"))
    xr.testing.assert_equal(opened, case.result)
    assert opened.attrs == case.result.attrs
    for name, variable in case.result.variables.items():
        assert {k: opened[name].attrs[k] for k in variable.attrs} == variable.attrs
        kinds = {opened[name].dtype.kind, variable.dtype.kind}
        assert len(kinds) == 1 or kinds <= {"U", "O"}


def figures_serialise_and_stay_small(case: Case) -> None:
    """All of them, and what a click on each kind of cell draws; drawing changes nothing."""
    before = case.result.copy(deep=True)
    drawn = [case.view.drawn(figure, case.result) for figure in case.view.figures]
    assert drawn and all(figure is not None for figure in drawn)
    drawn += [case.view.drawn(detail, case.result, dict(SELECTION)) for detail in case.view.details]
    for figure in filter(None, drawn):
        assert len(figure.to_json()) < MEGABYTE
    xr.testing.assert_identical(case.result, before)


def tables_are_frames(case: Case) -> None:
    """With rows, and names that say what stands in them."""
    for table in case.view.tables:
        made = case.view.drawn(table, case.result)
        assert isinstance(made, pd.DataFrame) and len(made) > 0 and all(isinstance(name, str) for name in made.columns)
        assert made.columns.is_unique
