"""How a result is kept and drawn: files, figures and tables."""

import tempfile
from pathlib import Path

import pandas as pd
import xarray as xr

from tests.contract.case import SELECTION, Case
from workbench.analysis.results import open_result, save
from workbench.storage.tables import tables

MEGABYTE = 1_000_000


def saved_and_opened_it_is_the_same(case: Case) -> None:
    """Numbers, labels, provenance and units; integers stay integers."""
    with tempfile.TemporaryDirectory() as folder:
        path = save(case.result, Path(folder) / f"{case.view.name}.nc")
        opened = open_result(path)
        with xr.open_dataset(path, engine="h5netcdf") as plain:  # whoever has xarray alone
            kinds_found = {str(name): plain[name].dtype.kind for name in case.result.variables}
    xr.testing.assert_equal(opened, case.result)
    assert opened.attrs == case.result.attrs
    for name, variable in case.result.variables.items():
        assert {k: opened[name].attrs[k] for k in variable.attrs} == variable.attrs
        for found in (opened[name].dtype.kind, kinds_found[str(name)]):
            assert found == variable.dtype.kind or {found, variable.dtype.kind} <= {"U", "O"}


def tables_are_no_larger_than_the_result(case: Case) -> None:
    """A row for each cell of a set of dims: `to_dataframe()` would make one of all dims together."""
    made = tables(case.result)
    cells = {frozenset(v.dims): v.size for v in case.result.data_vars.values()}
    assert sorted(map(len, made.values())) == sorted(cells.values())
    columns = [name for table in made.values() for name in table.columns]
    assert set(map(str, case.result.data_vars)) <= set(columns)


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
