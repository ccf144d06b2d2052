"""Causal check: does a claimed unit matter more than its like?"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

import xarray as xr

from probes import stimuli
from probes.checks.hypothesis import EITHER, METHODS, SIDES
from probes.checks.matched_controls import N_CONTROLS
from probes.checks.removal import checking
from probes.checks.verdict import ENOUGH_PROMPTS
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.run import Progress
from workbench.analysis.view import View
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, READOUT
from workbench.observation.metrics import KINDS, TARGET

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "CausalCheck", "controls_figure", "repeated_tokens"]

STIMULI = ("prompt", "repeated tokens")
_REPEATED = 24  # tokens of a sequence that repeats


class CausalCheck(Study, name="causal-check", title="Causal check", requires=(READOUT, PADDING)):
    """Does a claimed unit matter more than its like?

    Definition: A claim names units, a metric and a way to take the units away. The check takes them away on every
    prompt, and does the same to at least 50 distinct control sets of units that are as loud and as deep. effect =
    metric with the units removed - metric as it is, averaged over prompts; p = (1 + controls at least as extreme) / (1
    + controls), on the side that the claim fixed beforehand, controls being as many units of the same kind, nearest in
    the norm of what their removal takes away, from the same or neighbouring layers; its floor is 1 / (1 + controls).

    Where a model has too few units (toys; whole blocks of most models), each control leaves the units alone and takes a
    random direction of the same norm at every position away instead, and the result says so; the few units that there
    are, are removed one by one and counted beside it. Where nothing nearby is as loud as the claim, the result says by
    how much.

    How units are removed: by zero, by their mean over a reference text, or by what they are on another prompt. An edge
    loses its weight; a key of a head is hidden before the softmax, and the rest of each row grows. Where interventions
    edit the model, the removal comes on top of them.

    Limits: An ablated unit leaves the rest of the model in a state it may never see otherwise. What p means: among
    units that are as loud and as deep, on these prompts only, how rare is this effect. It is not a statement about
    prompts; those have their own interval (bootstrap, from 8 prompts on). Where the claim is the loudest of its like,
    its controls are quieter.

    Source: matched random controls as in Wang et al. 2022, arXiv 2211.00593, section 4; p: Phipson and Smyth 2010.

    Returns: `effect` and its interval over prompts, `effect_by_prompt` (prompt), `control_effect` (draw), `p`,
    `p_floor`, `louder`, and attrs: sentence, window, controls; where directions stand in for units, `peer_effect`
    (component), the effect of every other unit of the kind.
    """

    units: Annotated[
        str,
        "what is removed, one kind, separated by spaces: L18H6 (head), L18H6:9<-3 (edge from 3 to 9), L18H6 key 0 "
        "(hidden from all queries), L20N507 (neuron), L20 mlp, L20 attention, L12 pos 5 (state)",
    ] = "L0H0"
    method: Annotated[str, Choice(METHODS), "how it is removed"] = METHODS[0]
    corrupt: Annotated[str, "prompt of equal length to resample from"] = ""
    metric: Annotated[
        str,
        Choice(KINDS),
        "what is measured: of the prediction at a position, or over the prompt: loss, or repetition (what followed "
        "each repeated token the last time)",
    ] = "log-probability"
    target: Annotated[str, f"{TARGET}; empty: the model's top token"] = ""
    against: Annotated[str, "what it is compared with"] = ""
    pos: Annotated[int, "position whose prediction is measured; -1 is the last"] = -1
    side: Annotated[str, Choice(tuple(SIDES)), "what the claim says the removal does to the metric"] = EITHER
    on: Annotated[str, Choice(STIMULI), "what it runs on: the prompt, or random tokens that repeat"] = STIMULI[0]
    others: Annotated[str, "prompts that check the claim instead of the shown one, separated by |"] = ""
    controls: Annotated[int, Range(N_CONTROLS, 1000), "number of control sets"] = N_CONTROLS
    seed: Annotated[int, Range(0), "seed of random controls"] = 0

    def reads_prompt(self) -> bool:
        """Repeated tokens are drawn."""
        return self.on == "prompt"

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The check on the current prompt, or on others where these are given: then it suggested the claim."""
        more = [text.strip() for text in self.others.split("|") if text.strip()]
        prompts: list[Any] = [tokens, *more]
        if self.on == "repeated tokens":
            prompts, more = list(repeated_tokens(model, self.seed)), []
        yield from checking(
            model,
            prompts if len(prompts) > 1 else prompts[0],
            self.units,
            {"kind": self.metric, "target": self.target, "against": self.against, "position": self.pos},
            self.method,
            corrupt=self.corrupt or None,
            side=self.side,
            n_controls=self.controls,
            suggested_by=[tokens] if more else (),
            seed=self.seed,
            progress=progress,
        )

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Less than half a pass for every control."""
        return 0.4 * self.controls + 2


def repeated_tokens(model: Model, seed: int) -> list[Tokens]:
    """Random tokens that repeat, drawn anew: not those that an induction score was found on."""
    drawn = stimuli.repeated_tokens(model, n_sequences=ENOUGH_PROMPTS, length=_REPEATED, seed=seed + 1)
    return [one for one, period in zip(drawn.tokens, drawn.fields["period"], strict=True) if period > 0]


def controls_figure(result: xr.Dataset) -> "go.Figure":
    """The effect among those of its controls."""
    import plotly.graph_objects as go

    from workbench.figures import show_text
    from workbench.figures.heatmap import finish

    effect, name, controls = float(result["effect"]), result.attrs["called"], result["control_effect"].values
    figure = go.Figure(go.Histogram(x=controls.tolist(), nbinsx=30, name="controls", marker_color="#9aa0a6"))
    low, high = min(effect, controls.min()), max(effect, controls.max())
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
    return finish(figure, f"{name}: effect beside that of {_beside(result)}", None, None)


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
    return "random directions" if result.attrs["controls"] == "random directions" else "matched controls"


VIEW = View(
    CausalCheck,
    question="Does it matter: what happens without it, and without its like?",
    figures=(controls_figure,),
)
