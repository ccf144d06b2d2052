"""How induction scores are drawn: grids of heads, one head beside its baselines, the loss around the repeat."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from probes.attention.induction.repeat_attention import KINDS
from workbench.analysis.view import chosen, reads

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "duplicate_token_figure",
    "head_detail",
    "induction_figure",
    "loss_figure",
    "previous_token_figure",
    "prompt_figure",
]


@reads("induction-heads")
def induction_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the induction score; induction heads are ringed."""
    from workbench.figures import heads_grid

    return heads_grid(
        result, "induction_score", title="Induction score", mark="is_induction_head", mark_name="induction head"
    )


def previous_token_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the previous-token score."""
    from workbench.figures import heads_grid

    return heads_grid(result, "previous_token_score", title="Previous-token score", **_ringed(result, "previous_token"))


def duplicate_token_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the duplicate-token score."""
    from workbench.figures import heads_grid

    title = "Duplicate-token score"
    return heads_grid(result, "duplicate_token_score", title=title, **_ringed(result, "duplicate_token"))


def _ringed(result: xr.Dataset, kind: str) -> dict[str, Any]:
    """The heads that are called by a score, where it is tested."""
    name = f"is_{kind}_head"
    return {"mark": name, "mark_name": f"{kind.replace('_', '-')} head"} if name in result else {}


def loss_figure(result: xr.Dataset) -> "go.Figure":
    """Loss around the start of the second copy, beside sequences without a repeat."""
    from workbench.figures import series

    return series(
        result, "loss_by_offset", "offset", title=f"Loss by position, 0 = start of the second copy{_over(result)}"
    )


def _over(result: xr.Dataset) -> str:
    """What the drawn intervals are over; nothing on a prompt, which has none."""
    n = result.attrs.get("n_sequences")
    return f" (95 % interval, n = {n} sequences)" if n else ""


def prompt_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the induction score on the prompt."""
    from workbench.figures import heads_grid

    return heads_grid(result, "induction_score", title="Induction score on this prompt")


def head_detail(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """The three scores of the selected head, with intervals where there are any, and what other keys or no repeat
    give."""
    from workbench.figures import bars, head_name

    at = chosen(result, selection, "layer", "head")
    if at is None:
        return None
    head = result.sel(layer=at[0], head=at[1], drop=True)
    kinds = [kind.replace("_", "-") for kind in KINDS]
    small = xr.Dataset(coords={"component": kinds})
    for ending in ("", "_low", "_high", "_null", "_q"):
        if f"{KINDS[0]}_score{ending}" in head:
            values = [head[f"{kind}_score{ending}"].item() for kind in KINDS]
            small[f"score{ending}"] = ("component", values, head[f"{KINDS[0]}_score{ending}"].attrs)
    small["score"].attrs |= {"long_name": "mean attention"}
    return bars(small, "score", "component", title=f"{head_name(*at)}: where it looks{_over(result)}")
