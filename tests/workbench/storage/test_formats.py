"""A result in every format: the same numbers, its own types, and a word about what cannot be written."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.workbench.storage.made import mixed
from workbench import open_result, save, tables
from workbench.analysis.results import GLOSSARY, dataset
from workbench.errors import InputError, UnavailableError
from workbench.storage import endings


def test_tables_have_a_row_for_each_value_and_none_for_a_product():
    found = tables(mixed())
    assert set(found) == {"layer_pos", "pos", "scalars", "edge"}
    assert {name: len(table) for name, table in found.items()} == {"layer_pos": 6, "pos": 3, "scalars": 1, "edge": 4}
    cells = found["layer_pos"]
    assert list(cells.columns) == ["layer", "pos", "token_text", "score", "turned"]
    result = mixed()
    for _, row in cells.iterrows():
        at = {"layer": row.layer, "pos": row.pos}
        assert row.score == result.score.sel(at).item() and row.turned == result.turned.sel(at).item()
        assert row.token_text == result.token_text.sel(pos=row.pos).item()


def test_integers_stay_integers_and_the_missing_one_is_missing():
    rank = tables(mixed())["pos"]["rank"]
    assert str(rank.dtype) == "Int64" and rank.isna().tolist() == [False, True, False] and rank[2] == 2


def test_plain_xarray_finds_integers_with_their_mark(tmp_path):
    with xr.open_dataset(save(mixed(), tmp_path / "r.nc")) as plain:
        assert plain["rank"].dtype.kind == "i" and plain["rank"].values.tolist() == [1, -1, 2]
        assert plain["rank"].attrs["absent"] == -1


@pytest.mark.parametrize("name", ["r.csv", "R.CSV", "r.parquet"])
def test_several_tables_are_several_files(tmp_path, name):
    save(mixed(), tmp_path / name)
    stem, _, ending = name.partition(".")
    files = {path.name: path for path in tmp_path.iterdir()}
    assert set(files) == {f"{stem}.{table}.{ending}" for table in ("layer_pos", "pos", "scalars", "edge")}
    read = pd.read_parquet if ending == "parquet" else pd.read_csv
    assert read(files[f"{stem}.layer_pos.{ending}"])["score"].tolist() == mixed().score.values.ravel().tolist()


def test_one_table_is_the_file_that_was_named(tmp_path):
    save(mixed()[["score"]], tmp_path / "one.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["one.csv"]


def test_json_is_strict_and_whole(tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    text = save(mixed(), tmp_path / "r.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found["scalars"] == {"total": None} and found["summary"] == "Made up."
    assert found["variables"]["rank"]["values"] == [1, None, 2]
    assert found["coords"]["token_text"]["values"] == ["a", "=1+1", "東"]
    assert found["variables"]["score"]["valid_max"] == 1 and math.isnan(mixed().total.item())


@pytest.mark.parametrize("name", ["r.xlsx", "r", "r.nc.gz", "nc"])
def test_unknown_endings_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"\.nc, \.zarr, \.csv, \.parquet, \.json"):
        save(mixed(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_name_that_ends_as_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="a directory"):
        save(mixed(), f"{tmp_path}/r.parquet/")
    assert not list(tmp_path.iterdir())


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(endings, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the library zarr"):
        save(mixed(), tmp_path / "r.zarr")
    with pytest.raises(InputError, match="pip install pyarrow"):
        save(mixed(), tmp_path / "r.parquet")


def test_a_zarr_store_is_what_xarray_reads(tmp_path):
    pytest.importorskip("zarr")
    path = save(mixed(), tmp_path / "r.zarr")
    with xr.open_zarr(path) as found:
        assert found.load().equals(mixed()) and found["rank"].dtype == mixed()["rank"].dtype
        endless = {"valid_min": -math.inf, "valid_max": math.inf}  # open bounds are left out
        assert all(endless | one.attrs == mixed()[name].attrs for name, one in found.data_vars.items())
    with pytest.raises(InputError, match="which is there already"):
        save(mixed(), path)
    assert [one.name for one in tmp_path.iterdir()] == ["r.zarr"]


def test_what_a_zarr_store_says_is_strict_json(tmp_path, monkeypatch):
    """Zarr keeps attributes as JSON, which has no infinity: readers in other languages would open nothing of it."""
    seen = []

    def to_zarr(result, place, **_):
        place.mkdir()
        seen.extend(json.dumps(part.attrs, allow_nan=False, default=float) for part in result.variables.values())

    monkeypatch.setattr(endings, "find_spec", lambda name: True)
    monkeypatch.setattr(xr.Dataset, "to_zarr", to_zarr)
    given = mixed()
    save(given, tmp_path / "r.zarr")
    assert len(seen) == len(given.variables) and any('"units"' in one for one in seen)
    assert given.identical(mixed())  # theirs keeps its bounds


def test_a_librarys_own_error_is_one_sentence(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("ArrowInvalid\nof many lines")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", broken)
    with pytest.raises(UnavailableError, match="RuntimeError: ArrowInvalid") as refused:
        save(mixed(), tmp_path / "r.parquet")
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_no_text_of_a_csv_is_a_formula(tmp_path):
    save(mixed()[["score"]], tmp_path / "r.csv")
    assert set(pd.read_csv(tmp_path / "r.csv")["token_text"]) == {"a", "'=1+1", "東"}


def test_what_netcdf_cannot_hold_is_refused_and_the_file_of_before_stays(tmp_path):
    path = save(mixed(), tmp_path / "r.nc")
    with pytest.raises(InputError, match="netCDF cannot hold"):
        save(mixed().assign_attrs(summary="half \ud800"), path)
    assert open_result(path).equals(mixed())
    assert np.isnan(open_result(path)["total"])


@pytest.mark.parametrize("text", ["\r", "old\rlines", "\n", "\r\n", '"', ","])
def test_a_row_of_a_csv_is_a_row_whatever_a_token_holds(tmp_path, text):
    """A carriage return ends a row for whoever reads it, unless it is quoted."""
    tokens = ["a", text, "b"]
    given = xr.Dataset({"score": ("pos", [1.0, 2.0, 3.0])}, coords={"token_text": ("pos", tokens)})
    save(given, tmp_path / "r.csv")
    read = pd.read_csv(tmp_path / "r.csv")
    assert read["token_text"].str.removeprefix("'").tolist() == tokens and read["score"].tolist() == [1.0, 2.0, 3.0]
    lines = (tmp_path / "r.csv").read_bytes()
    assert lines.startswith(b"pos,token_text,score\n0,a,1.0\n") and lines.endswith(b"\n2,b,3.0\n")


WHOLE = {"units": "nats", "long_name": "x", "valid_min": -np.inf, "valid_max": np.inf}


@pytest.mark.parametrize(
    ("result", "named"),
    [
        (xr.Dataset({"x": ("layer", np.arange(3.0))}), "x without units"),
        (xr.Dataset({"x": (("layer", "pos"), np.zeros((3, 0)), WHOLE)}), "without any pos"),
        (xr.Dataset({"x": ("words", np.zeros(2), WHOLE)}), "the dim 'words'"),
        (xr.Dataset({"x\0y": ("layer", np.zeros(2), WHOLE)}), r"named 'x\\x00y'"),
        (xr.Dataset({1: ("layer", np.zeros(2), WHOLE)}), "named 1"),
        (xr.Dataset({"x": ("layer", np.zeros(2), WHOLE)}, attrs={"provenance": "[1]"}), "provenance that is no object"),
        (xr.Dataset({"x": ("layer", np.zeros(2), WHOLE)}, attrs={"summary": 3}), "another summary"),
    ],
    ids=["units", "empty", "dim", "cut", "number", "provenance", "summary"],
)
def test_what_could_not_be_opened_is_not_saved(tmp_path, result, named):
    """A file that its own reader refuses is found out months later."""
    with pytest.raises(InputError, match=named):
        save(result, tmp_path / "r.nc")
    assert not list(tmp_path.iterdir())


def test_no_table_takes_the_place_of_another_of_its_name(tmp_path):
    """Of what was stacked by hand beside what was not, the first table was dropped, in files too."""
    a, b, c = np.arange(6.0), np.ones((2, 3)), np.zeros((2, 3, 1))
    both = xr.Dataset({"a": ("layer_head", a), "b": (("layer", "head"), b), "c": (("layer", "head", "pos"), c)})
    assert {name: list(table) for name, table in tables(both).items()} == {
        "layer_head": ["layer_head", "a"], "layer_head_2": ["layer", "head", "b"],
        "layer_head_pos": ["layer", "head", "pos", "c"],
    }  # fmt: skip
    save(both, tmp_path / "r.csv")
    assert pd.read_csv(tmp_path / "r.layer_head.csv")["a"].tolist() == a.tolist()
    assert pd.read_csv(tmp_path / "r.layer_head_2.csv")["b"].tolist() == b.ravel().tolist()


def test_a_table_of_variables_without_names_is_refused():
    with pytest.raises(InputError, match="named 1"):
        tables(xr.Dataset({1: ("layer", np.zeros(2))}))


def test_a_protected_file_is_not_replaced(tmp_path):
    path = save(mixed(), tmp_path / "r.nc")
    path.chmod(0o444)
    before = path.read_bytes()
    with pytest.raises(InputError, match="protected from being written"):
        save(mixed().assign_attrs(summary="other"), path)
    assert path.read_bytes() == before


PACKED = {"dtype": "int8", "scale_factor": 2.0}


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_numbers_are_saved_as_they_are_whatever_file_they_came_from(tmp_path, ending):
    """xarray remembers how a file packed them, and would write 300 as 44."""
    if ending == "zarr":
        pytest.importorskip("zarr")
    given = xr.Dataset(
        {"n": ("layer", np.array([300, -5, 7]), WHOLE), "x": ("layer", np.array([0.25, 300.0, 1.75]), WHOLE)}
    )
    given["n"].encoding, given["x"].encoding = dict(PACKED), dict(PACKED)
    path = save(given, tmp_path / f"r.{ending}")
    with xr.open_dataset(path, engine="h5netcdf" if ending == "nc" else "zarr") as read:
        assert read["n"].values.tolist() == [300, -5, 7] and read["x"].values.tolist() == [0.25, 300.0, 1.75]


def test_a_store_is_opened_by_what_reads_stores(tmp_path):
    (tmp_path / "r.zarr").mkdir()
    with pytest.raises(InputError, match=r"xarray\.open_zarr"):
        open_result(tmp_path / "r.zarr")
    pytest.importorskip("zarr")
    with pytest.raises(InputError, match="named 'a/b'"):
        save(xr.Dataset({"a/b": ("layer", np.zeros(2), WHOLE)}), tmp_path / "s.zarr")


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_a_result_in_another_format_is_not_called_damaged(tmp_path, ending):
    """It is whole, and was saved by us: to compute it again into such a file would not help."""
    path = save(dataset(None, {"pos": range(2)}, a=("pos", np.ones(2), "nats", None)), tmp_path / f"r.{ending}")
    with pytest.raises(InputError, match=rf"r\.{ending}, whose ending is \.{ending}; expected a result in netCDF"):
        open_result(path)


def test_the_largest_integers_stay_what_they_are_beside_a_missing_one():
    """As a signed one, the largest without a sign is -1."""
    given = xr.Dataset({"n": ("row", np.array([2**64 - 1, 0], np.uint64), {"absent": 0})})
    assert tables(given)["row"]["n"].tolist() == [2**64 - 1, pd.NA]


@pytest.mark.parametrize(
    "result",
    [
        xr.Dataset(attrs={f"a{i}": 1 for i in range(600)}),
        xr.Dataset(attrs={"steps": list(range(5_000))}),
        xr.Dataset({"x": (GLOSSARY[:13], np.zeros((1,) * 13), WHOLE)}),
    ],
    ids=["attributes", "values", "dims"],
)
def test_more_than_a_file_may_hold_is_said_when_it_is_saved(tmp_path, result):
    with pytest.raises(InputError, match=r"a result with .*at most"):
        save(result, tmp_path / "r.nc")
    assert not list(tmp_path.iterdir())


def test_an_address_and_half_a_character_are_no_paths(tmp_path, monkeypatch):
    """The address became a folder called `s3:` where the user stood."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="an address"):
        save(mixed(), "s3://bucket/r.nc")
    for touched in (open_result, lambda path: save(mixed(), path)):
        with pytest.raises(InputError, match="half a character"):
            touched("a\ud800.nc")
    assert not list(tmp_path.iterdir())
