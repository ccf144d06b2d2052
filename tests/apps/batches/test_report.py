"""What the report of a batch says of an aggregate."""

import numpy as np
import pytest
import xarray as xr

from apps.batches.figures import one_figure
from apps.batches.report import _rows


def aggregated(values):
    """An aggregate of one model and group, over heads."""
    dims, found = ("model", "group", "layer", "head"), np.array(values, float)[None, None]
    effects = {
        f"effect{end}": (dims, found + shift, {"units": "nats"}) for end, shift in (("", 0), ("_low", -1), ("_high", 1))
    }
    return xr.Dataset(
        effects | {"effect_n": (dims, np.full(found.shape, 20))},
        coords={"model": ["m"], "group": ["g"], "layer": [0, 1], "head": [0, 1]},
    )


def test_the_largest_effect_may_lie_below_zero():
    """Of effects that lower something the row named the one that does least."""
    (row,) = _rows(aggregated([[0.5, -3.25], [np.nan, 1.0]]))
    assert row["largest"] == "L0H1: -3.25 [-4.25, -2.25]" and row["mean"] == "-0.5833" and row["n"] == 20
    (row,) = _rows(aggregated([[-0.5, -0.25], [-0.125, -1.0]]))
    assert row["largest"] == "L1H1: -1 [-2, 0]"


def test_a_part_is_named_by_its_label():
    """The row said "component 1", which nobody can look up."""
    heads = aggregated([[0.5, -3.25], [0.25, 1.0]])
    parts = heads.stack(component=("layer", "head")).drop_vars(("component", "layer", "head"))
    (row,) = _rows(
        parts.assign_coords(component=range(4), label=("component", ["embedding", "L0 MLP", "L1H0", "L1H1"]))
    )
    assert row["largest"] == "L0 MLP: -3.25 [-4.25, -2.25]"


@pytest.mark.parametrize(("ranks", "said"), [([0, 1], "rank"), (["first", "second"], "")])
def test_bars_of_numbers_say_what_is_numbered(ranks, said):
    at = {"model": "m", "group": "g", "rank": ranks}
    one = xr.Dataset({"p": ("rank", [0.5, 0.2], {"units": "probability"}), "p_n": ("rank", [3, 3])}, coords=at)
    assert one_figure(one, "p").layout.yaxis.title.text == said
