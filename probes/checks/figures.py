"""How a check is drawn: the effect among those of its controls, and the effect against norm."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["controls_figure", "norms_figure"]


def controls_figure(result: xr.Dataset) -> "go.Figure":
    """The effect among those of its controls."""
    import plotly.graph_objects as go

    from workbench.figures import show_text
    from workbench.figures.heatmap import finish

    effect, name, controls = float(result["effect"]), result.attrs["called"], result["control_effect"].values
    figure = go.Figure()
    if len(controls):
        figure.add_histogram(x=controls.tolist(), nbinsx=30, name="controls", marker_color="#9aa0a6")
    shown = controls if len(controls) or "peer_effect" not in result else result["peer_effect"].values
    low, high = min([effect, *shown.tolist()]), max([effect, *shown.tolist()])
    room = 0.05 * (high - low) or 1.0
    if "peer_effect" in result:
        _draw_peers(figure, result, low - room, high + room)
    left = effect > (low + high) / 2  # the name stands on the side that has room
    figure.add_vline(
        x=effect,
        line={"color": "#c0392b", "width": 3},
        annotation={"text": name, "font": {"color": "#c0392b"}},
        annotation_position="top left" if left else "top right",
    )
    figure.update_xaxes(range=[low - room, high + room])
    figure.update_layout(
        xaxis_title=show_text(f"effect on the {result.attrs['metric']} ({result['effect'].attrs['units']})"),
        yaxis_title="control sets",
        yaxis_rangemode="tozero",
    )
    if not len(controls):  # strokes on an axis are all there is: a scale of sets would count nothing
        figure.update_yaxes(title_text="", showticklabels=False, showgrid=False, range=[0, 1])
    title = f"{name}: effect beside that of {_beside(result)}"
    if not len(shown):
        title = f"{name}: effect, with too few as loud to hold it against"
    return finish(figure, title, None, None)


def _draw_peers(figure: "go.Figure", result: xr.Dataset, low: float, high: float) -> None:
    """The few others of the kind as strokes on the axis; one whose removal breaks the model would hide the rest."""
    others = result["peer_effect"].values
    seen = (others >= low) & (others <= high)
    name = "the others" if seen.all() else f"the others ({seen.sum()} of {len(others)}; the rest lie outside)"
    figure.add_scatter(
        x=others[seen].tolist(),
        y=[0] * int(seen.sum()),
        mode="markers",
        name=name,
        marker={"symbol": "line-ns-open", "size": 12, "color": "#1f77b4"},
        text=result["label"].values[seen].tolist(),
        hovertemplate="%{text} %{x:.3g}<extra></extra>",
    )
    figure.update_traces(showlegend=True)


def _beside(result: xr.Dataset) -> str:
    """What the controls are, for a title."""
    kind = result.attrs["controls"]
    return {"random directions": kind, "none": "the others, since too few are as loud"}.get(kind, "matched controls")


def norms_figure(result: xr.Dataset) -> "go.Figure":
    """Effect against norm: the claim, its controls within the caliper, the others, and the size expected of them."""
    import plotly.graph_objects as go

    from workbench.figures import show_text
    from workbench.figures.heatmap import finish

    figure, name, caliper = go.Figure(), result.attrs["called"], float(result.attrs["caliper"])
    draw = lambda x, y, label, colour, **more: figure.add_scatter(
        x=x.tolist(), y=y.tolist(), mode="markers", name=label, marker={"color": colour, **more}
    )
    if "peer_effect" in result:
        norm, scale = result["peer_norm"].values, result["peer_scale"].values
        draw(norm, result["peer_effect"].values, "the others", "#c6d4e1", size=6)
        order = np.argsort(norm)
        if np.isfinite(scale).all():
            for sign, legend in ((1, True), (-1, False)):
                figure.add_scatter(
                    x=norm[order].tolist(), y=(sign * scale[order]).tolist(), mode="markers", showlegend=legend,
                    name="size expected, by norm and depth", marker={"color": "#1f77b4", "size": 3},
                )  # fmt: skip
    if np.isfinite(result["control_norm"].values).any():
        draw(result["control_norm"].values, result["control_effect"].values, "controls", "#5f6368", size=7)
    draw(np.ones(1), result["effect"].values[None], name, "#c0392b", size=12)
    figure.add_vrect(x0=1 / caliper, x1=caliper, fillcolor="#9aa0a6", opacity=0.15, line_width=0)
    figure.update_xaxes(type="log")
    figure.update_layout(
        xaxis_title=show_text(f"norm (times that of {name}; the band is the caliper)"),
        yaxis_title=show_text(f"effect ({result['effect'].attrs['units']})"),
    )
    return finish(figure, f"{name}: effect against norm", None, None)
