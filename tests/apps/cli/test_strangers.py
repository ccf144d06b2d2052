"""Comparing results that somebody has changed: two numbers held against each other, or one sentence and code 2."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.cli import main
from probes import CATALOG
from tests.long_run import examples
from workbench import load, open_result
from workbench.storage.formats import write

NAMES = ("logit-lens", "attention-sinks", "flow-routes")
WAYS = ["drop", "attribute", "kind", "values", "dims", "record", "empty", "of"]
ODD = [None, "", "x" * 3_000, "<b>$x$", np.nan, -np.inf, 10**9, [1, 2], ["a", "b"], "{}", "[]", True]


@pytest.fixture(scope="module")
def results():
    model = load("toy-induction")
    return {name: CATALOG.view(name).analysis().run(model, [5, 9, 13, 5]) for name in NAMES}


def changed(result, data):
    """A result with one thing of it changed, as by another program or another version."""
    result = result.copy(deep=True)
    name = data.draw(st.sampled_from(sorted(map(str, result.variables))), label="variable")
    how = data.draw(
        st.sampled_from(["drop", "attribute", "kind", "values", "dims", "record", "empty", "of"]), label="how"
    )
    if how == "drop":
        return result.drop_vars(name)
    if how == "attribute":
        key = data.draw(st.sampled_from([*result[name].attrs, "units", "difference", "coordinates", "dtype"]))
        value = data.draw(st.sampled_from(ODD))
        result[name].attrs = {**result[name].attrs, key: "none" if value is None else value}
    if how == "kind" and result[name].dtype.kind in "fi":
        kind = data.draw(st.sampled_from(["float16", "int8", "uint64", "bool", "str"]))
        return result.assign({name: result[name].astype(kind)})
    if how == "values" and result[name].dtype.kind == "f":
        return result.assign({name: result[name] * data.draw(st.sampled_from([0.0, np.nan, np.inf, 1e300, -1.0]))})
    if how == "dims" and result.sizes:
        dim = data.draw(st.sampled_from(sorted(map(str, result.sizes))))
        return result.isel({dim: data.draw(st.sampled_from([0, slice(0, 1), slice(None, None, -1), [0, 0, 1, 1]]))})
    if how == "empty" and result.sizes:
        return result.isel({data.draw(st.sampled_from(sorted(map(str, result.sizes)))): slice(0, 0)})
    if how in ("record", "of"):
        record = json.loads(result.attrs["provenance"])
        key = data.draw(st.sampled_from(sorted(record))) if how == "record" else "analysis"
        record[key] = data.draw(st.sampled_from(NAMES if how == "of" else ODD))
        return result.assign_attrs(provenance=json.dumps(record))
    return result


@settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_changed_result_is_compared_or_refused(results, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("pair")
    name = data.draw(st.sampled_from(NAMES))
    pair = [results[name], changed(results[name], data)]
    if data.draw(st.booleans()):
        pair.reverse()
    for file, result in zip(("a.nc", "b.nc"), pair, strict=True):
        try:
            write(result, folder / file)
        except ValueError:
            return  # netCDF has no place for it: no such file can be
    words = ["compare", f"{folder}/a.nc", f"{folder}/b.nc", "--figure", f"{folder}/f.html", "--out", f"{folder}/c.nc"]
    code = main(words)
    assert code in (0, 2)
    if code == 0:
        open_result(folder / "c.nc")
