"""Groups of numbers read straight from HDF5 are what xarray opens; what is no such group is left to xarray."""

import io

import h5py
import numpy as np
import pytest
import xarray as xr

from workbench.storage import netcdf
from workbench.storage.numbers import numbers_of

ATTRS = {"units": "share", "long_name": "of something", "valid_min": 0.0, "valid_max": np.inf}


def written(**groups):
    """Bytes of a file with these groups below /rows."""
    tree = xr.DataTree.from_dict({f"/rows/{name}": one for name, one in groups.items()})
    floats = {
        f"/rows/{name}": {v: {"_FillValue": None} for v, one in group.variables.items() if one.dtype.kind == "f"}
        for name, group in groups.items()
    }
    return bytes(tree.to_netcdf(None, engine="h5netcdf", encoding=floats))


def rows(**more):
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    made = {
        "x": (("prompt", "layer", "head"), values, ATTRS),
        "y": (("prompt", "head"), values[:, 0] * np.nan, ATTRS),
        "n": (("prompt",), np.arange(2, dtype=np.int64), dict(ATTRS, absent=-1)),
    }
    coords = {"layer": np.arange(3), "head": np.arange(4, dtype=np.int32), **more}
    return xr.Dataset(made, coords, {"left_out": "{}"})


def read(content, name):
    with h5py.File(io.BytesIO(content), "r") as file:
        return numbers_of(file[f"rows/{name}"])


def test_it_is_what_xarray_opens():
    content = written(
        a=rows(), b=rows().isel(prompt=slice(1), layer=slice(1)).drop_vars("layer"),
        c=rows().assign(one=((), 2.5, ATTRS)),
    )  # fmt: skip
    for name in ("a", "b", "c"):
        fast, slow = read(content, name), netcdf._opened(content, f"rows/{name}")
        assert fast.identical(slow) and netcdf.group_of(content, f"rows/{name}").identical(slow)
        for variable in slow.variables:
            assert fast[variable].dtype == slow[variable].dtype
            for attribute, value in slow[variable].attrs.items():
                assert type(fast[variable].attrs[attribute]) is type(value)


@pytest.mark.parametrize(
    "odd",
    [
        rows(head=["a", "b", "c", "d"]), rows().assign(word=("prompt", ["a", "b"])),
        rows().assign(flag=("prompt", [True, False])), rows().assign_coords(where=("prompt", [1.0, 2.0])),
        rows().assign(z=((), 1.0, dict(ATTRS, weights=[1.0, 2.0]))),
    ],
    ids=["names", "texts", "truths", "further coords", "further attributes"],
)  # fmt: skip
def test_what_is_more_than_numbers_is_left_to_xarray(odd):
    content = written(a=odd)
    assert read(content, "a") is None
    assert netcdf.group_of(content, "rows/a").identical(netcdf._opened(content, "rows/a"))


def test_names_of_dims_may_be_written_as_texts():
    """h5netcdf writes bytes, other programs may not."""
    held = io.BytesIO(written(a=rows()))
    with h5py.File(held, "r+") as file:
        for name in ("prompt", "layer", "head"):
            scale = file["rows/a"][name].attrs
            said = scale["NAME"].decode()
            del scale["NAME"]
            scale["NAME"] = said
    assert read(held.getvalue(), "a").equals(rows())
