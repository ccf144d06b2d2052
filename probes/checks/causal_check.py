"""Causal check: does a claimed unit matter more than its like?"""

from collections.abc import Generator
from typing import Annotated, Any

import xarray as xr

from probes import stimuli
from probes.checks.figures import controls_figure, norms_figure
from probes.checks.hypothesis import EITHER, METHODS, SIDES, checked_units, chosen_prompts, need_inside
from probes.checks.matched_controls import CALIPER, FEWEST, N_CONTROLS, N_PEERS
from probes.checks.removal import checking
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Lines, OfPrompt, Position, Range
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.errors import InputError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, READOUT
from workbench.observation.metrics import KINDS, TARGET, going_on
from workbench.statistics import ENOUGH

__all__ = ["VIEW", "CausalCheck", "repeated_tokens"]

STIMULI = ("prompt", "repeated tokens")
_REPEATED = 24  # tokens of a sequence that repeats
_OF_ALL = ("loss", "repetition")  # metrics of all tokens


class CausalCheck(Study, name="causal-check", title="Causal check", requires=(READOUT, PADDING)):
    """Does a claimed unit matter more than its like?

    Definition: A claim names units, a metric and a way to take the units away. The check takes them away on every
    prompt, and does the same to up to 50 distinct control sets of units of the same kind. effect = metric with the
    units removed - metric as it is, averaged over prompts; p = (1 + controls at least as extreme) / (1 + controls), on
    the side that the claim fixed beforehand. Every member of a control lies within a caliper of the unit it replaces:
    the norm of what it writes (what removal by zero takes away, however it is removed) is at most 1.5 times as large or
    as small; of those the nearest in depth are taken. Fewer controls have a larger smallest p; where a unit has fewer
    than 19, the test is refused.

    A second answer needs no caliper: the effects of other units of the kind, whatever their norm (a sample of them,
    where there are more than asked for), against a model of the relation, log |effect| a parabola in log norm
    and in depth, with a spread that goes with the norm; p is the rank of the residual over its spread, and the model is
    tested: where it does not hold, that is said.

    Where a model has fewer than 50 other units (toys; whole blocks of most models) and fewer than 19 as loud, each
    control leaves the units alone and adds a random direction of the same norm at every position but 0 instead: that is
    not the claim's like, and the sentence says so, after the others of the kind, removed one by one.

    How units are removed: by zero, by their mean over a reference text, or by what they are on another prompt. An edge
    loses its weight; a key of a head is hidden before the softmax, and the rest of each row grows. Where interventions
    edit the model, the removal comes on top of them.

    Limits: An ablated unit leaves the rest of the model in a state it may never see otherwise. What p means: among
    units that are as loud and near in depth, on these prompts only, how rare is this effect. It is not a statement
    about prompts; those have their own interval, from 16 prompts on. A unit chosen for its score, or one of many that
    were checked, needs more: `head-survey` tests all heads at once.

    Source: matched random controls as in Wang et al. 2022, arXiv 2211.00593, section 4; p: Phipson and Smyth 2010; the
    caliper: Rosenbaum and Rubin 1985; the relation is ours, its spread after Harvey 1976. How often p is small where
    nothing is claimed: docs/pages/calibration.md.

    Returns: `effect` and its interval over prompts, `effect_by_prompt` (prompt), of several with `prompt_text` and
    `measured` (prompt); `control_effect`, `control_norm`
    (draw), `p`, `p_floor`, `louder`, `control_norm_low`, `control_norm_high`; `peer_effect`, `peer_norm`, `peer_scale`
    (component), of other units of the kind; `relation_p`, `relation_slope`, `relation_scale`, `relation_test_p`; and
    attrs: sentence, window, controls, caliper.
    """

    units: Annotated[
        str,
        "what is removed, one kind, separated by spaces: L18H6 (head), L18H6:9<-3 (edge from 3 to 9), L18H6 key 0 "
        "(hidden from all queries), L20N507 (neuron), L3E5N12 (an expert's), L20 mlp, L20 attention, L12 pos 5 (state)",
    ] = "L0H0"
    method: Annotated[str, Choice(METHODS), "how it is removed"] = METHODS[0]
    corrupt: Annotated[str, OfPrompt(), Lines(), "prompt of equal length to resample from"] = ""
    metric: Annotated[
        str,
        Choice(KINDS),
        "what is measured: of the prediction at a position, or over the prompt: loss, or repetition (what followed "
        "each repeated token the last time)",
    ] = "log-probability"
    target: Annotated[str, f"{TARGET}; empty: the model's top token"] = ""
    against: Annotated[str, "what it is compared with"] = ""
    pos: Annotated[int, Position(), "position whose prediction is measured; -1 is the last"] = -1
    side: Annotated[str, Choice(tuple(SIDES)), "what the claim says the removal does to the metric"] = EITHER
    on: Annotated[str, Choice(STIMULI), "what it runs on: the prompt, or random tokens that repeat"] = STIMULI[0]
    others: Annotated[str, Lines(), "prompts that check the claim instead of the shown one, separated by |"] = ""
    controls: Annotated[int, Range(FEWEST, 1000), "number of control sets, at most"] = N_CONTROLS
    caliper: Annotated[float, Range(1.05, 100.0), "factor of norm within which a control lies"] = CALIPER
    peers: Annotated[
        int, Range(0, 100_000), "other units of the kind, whatever their norm, for the answer without a caliper"
    ] = N_PEERS
    seed: Annotated[int, Range(0, 2**31 - 1), "seed of random controls"] = 0

    def reads_prompt(self) -> bool:
        """Repeated tokens are drawn."""
        return self.on == "prompt"

    def idle(self) -> dict[str, str]:
        """Some metrics are of all tokens."""
        return {"pos": "a metric of one position"} if self.metric in _OF_ALL else {}

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The check on the current prompt, or on others where these are given: then it suggested the claim."""
        more = [text.strip() for text in self.others.split("|") if text.strip()]
        prompts: list[Any] = [tokens, *more]
        if self.on == "repeated tokens":
            if more:  # the drawn ones would be taken for them
                expected = "on='prompt' for prompts that check the claim"
                raise InputError(f"others, and on={self.on!r}", expected, "Choose it, or leave the others out")
            prompts = list(repeated_tokens(model, self.seed))
        yield from checking(
            model,
            prompts if len(prompts) > 1 else prompts[0],
            self.units,
            {"kind": self.metric, "target": self.target, "against": self.against, "position": self.pos},
            self.method,
            corrupt=self.corrupt or None,
            side=self.side,
            n_controls=self.controls,
            caliper=self.caliper,
            peers=self.peers,
            suggested_by=[tokens] if more else (),
            seed=self.seed,
            progress=progress,
        )

    def fits(self, model: Model, tokens: Tokens) -> None:
        """Units of one kind that can be removed so, and a position, inside the prompt; a corrupt one as long as it."""
        corrupt = self.corrupt or None
        units = checked_units(model, self.units, self.side, self.controls, self.method, corrupt)
        if self.reads_prompt() and not self.others:
            metric = {"kind": self.metric, "target": self.target, "against": self.against, "position": self.pos}
            need_inside(units, chosen_prompts(model, tokens, corrupt, metric, ())[0])
            if self.metric not in _OF_ALL:
                tokens.place(self.pos)
        going_on(model, self.metric, self.target, self.against)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Less than half a pass for every control."""
        return 0.4 * (self.controls + self.peers) + 2


def repeated_tokens(model: Model, seed: int) -> list[Tokens]:
    """Random tokens that repeat, drawn anew: not those that an induction score was found on."""
    drawn = stimuli.repeated_tokens(model, n_sequences=ENOUGH, length=_REPEATED, seed=seed + 1)
    return [one for one, period in zip(drawn.tokens, drawn.fields["period"], strict=True) if period > 0]


VIEW = View(
    CausalCheck,
    question="Does it matter: what happens without it, and without its like?",
    asks=(
        Ask("units", "Remove", pick="units"),
        Ask("method", "by"),
        Ask("metric", "and measure"),
    ),
    figures=(controls_figure, norms_figure),
)
