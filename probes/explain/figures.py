"""How an explanation is drawn: where the information sits, which heads matter, the circuit, its parts, its pairs."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.circuits.circuit_search import circuit_of
from workbench.figures.text import shorten

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["circuit_figure", "heads_figure", "pairs_table", "parts_table", "steps_table", "where_figure"]

_BESIDE = 80  # characters of the counterfactual prompt in a title


def circuit_figure(result: xr.Dataset) -> "go.Figure":
    """The circuit on the lattice of heads and MLPs; before there is one, where the information sits."""
    if "n_kept" not in result:
        return where_figure(result)
    return circuit_of(result).figure()


def where_figure(result: xr.Dataset) -> "go.Figure":
    """Share of the answer that each state of the shown pair brings back; before it is patched, its estimate.

    The title names the contrast, which is made where the user gave none.
    """
    from workbench.figures import depth_pos_grid

    name = "recovered" if "recovered" in result else "resid_estimate"
    how = "states patched one by one" if name == "recovered" else "estimated"
    why = f"{result.attrs['target']!r} rather than {result.attrs['against']!r}"
    title = f"Where the information sits: {how}, {why}, beside {shorten(result.attrs['shown_corrupt'], _BESIDE)!r}"
    return depth_pos_grid(result, name, title=title, color_range="data")


def heads_figure(result: xr.Dataset) -> "go.Figure":
    """What replacing each head does beyond its controls; heads that matter are ringed. Before the survey, estimates."""
    from workbench.figures import heads_grid

    if "contrast" not in result:
        return heads_grid(result, "head_estimate", title="Heads, estimated on the shown pair", color_range="data")
    marked = [(int(layer), int(head)) for layer, head in np.argwhere(result["matters"].values == 1)]
    title = f"Replacing a head, beyond controls that change as much ({result.attrs['n_surveyed']} pairs)"
    return heads_grid(result, "contrast", title=title, color_range="data", mark=marked, mark_name="matters")


def parts_table(result: xr.Dataset) -> "pd.DataFrame":
    """What the parts of the circuit do; before they are read off, the test pairs."""
    if "part_name" not in result:
        return pairs_table(result)
    names = [name for name in result.data_vars if str(name).startswith("part_")]
    frame: Any = result[names].reset_coords(drop=True).to_dataframe()
    frame = frame.assign(part_head=[int(head) if head >= 0 else "" for head in frame["part_head"]])  # an MLP has none
    tokens = result["token_text"].values if "token_text" in result.coords else None
    if tokens is not None:
        said = lambda pos: "" if pos < 0 else f"{pos} {tokens[pos]!r}"
        frame = frame.assign(part_pos=frame["part_pos"].map(said), part_looks_at=frame["part_looks_at"].map(said))
    frame = frame.rename(columns={"part_layer": "layer", "part_head": "head"})
    return frame.set_index("part_name").rename_axis("part")


def pairs_table(result: xr.Dataset) -> "pd.DataFrame":
    """The test pairs, those on which the circuit fails first; before there are any, the shown pair."""
    names = [name for name in result.data_vars if str(name).startswith("pair_") and result[name].dims == ("prompt",)]
    if not names:
        return _shown_pair(result)
    frame: Any = result[names].reset_coords(drop=True).to_dataframe()
    if "pair_holds" not in frame:
        return frame
    frame = frame.assign(pair_holds=frame["pair_holds"].map({0: "no", 1: "yes"}).fillna(""))
    return frame.sort_values("pair_share")


def _shown_pair(result: xr.Dataset) -> "pd.DataFrame":
    import pandas as pd

    parts = {"clean": "shown_clean", "corrupt": "shown_corrupt", "answer": "target", "wrong": "against"}
    return pd.DataFrame([{f"pair_{name}": result.attrs[key] for name, key in parts.items()}])


def steps_table(result: xr.Dataset) -> "pd.DataFrame":
    """The steps, what each costs in forward passes of the prompt, and whether it is done."""
    import pandas as pd

    return pd.DataFrame(json.loads(result.attrs["steps"])).set_index("step")
