"""Token erasure: where a model stops carrying the pieces of a word, read by probes with a card.

At the last token of a word of several tokens the piece before it is readable early and mostly gone later. How far this
holds is measured by `token-erasure-accuracy`. On the default model, depth 2 to 20, one split of the text, last tokens
of words lose this much more than a control (share of tokens named, 95 % over documents), with trained weights, with
random ones around the trained embedding, and the first less the second:

    offset -1, against other tokens          0.19 [0.15, 0.24]     0.07 [0.03, 0.11]    0.12 [0.08, 0.17]
    offset -1, equally frequent ones         0.20 [0.16, 0.24]     0.11 [0.06, 0.15]    0.09 [0.05, 0.13]
    offset -1, tokens of the same type       0.13 [-0.005, 0.22]   0.09 [0.01, 0.14]    0.04 [-0.08, 0.15]
    offset 0, tokens of the same type        0.10 [0.03, 0.19]     0.00 [0.00, 0.00]    0.10 [0.03, 0.19]

Against the same type, from some 250 tokens, the drop at offset -1 is not shown, and neither is that it is larger than
that of random weights. Offset -2 has too few tokens for it.

The probes are cheaper than the paper's and not bias-free: this is in its style, not a replication.
"""

from typing import Annotated, Any

import numpy as np
import xarray as xr

from probes.checks import claims
from probes.erasure.figures import class_detail, lines_figure, readout_detail, tokens_figure, triangle_figure
from probes.erasure.psi import segment, token_psi
from probes.erasure.readout import SHOWN, Kind, chosen_depths, erasure, plan, probes_digest, read, shown_offsets
from probes.erasure.trained.artifact import ReadoutProbes
from probes.erasure.trained.published import UNMEASURED
from probes.erasure.trained.states import first_text_position, needs_of
from probes.erasure.trained.words import multi_token_words
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.view import Ask, Claim, View
from workbench.errors import InputError, WorkbenchError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.observation import Need, Observation, observe
from workbench.words import hundredths

__all__ = ["VIEW", "TokenErasure", "curve_of"]


class TokenErasure(OnPrompt, name="token-erasure", title="Token erasure"):
    """Erasure by offset, psi of segments, and what the probes read at every token.

    Definition: A linear probe names the token at t + i (i = 0, -1, -2) from the state at t. With two depths,
    erasure(t, i) = p_early(t, i) - p_late(t, i), p the probability of the true token, over the probe's vocabulary.
    psi(p, q) = [erasure(q, 0) + sum over t in p..q and i = -1, -2 of +-erasure(t, i)] / (1 + terms), + for tokens
    inside the span, - for tokens before it; segments are taken greedily by psi.

    Limits: Probes cheaper than the paper's, trained on little text of one kind, unless you train or import others. psi
    near 0 says nothing; most segments are ordinary phrases. What a probe no longer reads may still be there in another
    form or be used. On the default model last tokens of words lose more at offset -1 than equally frequent tokens,
    which random weights show too, though less. Than tokens of the same type: +0.13 [-0.005, +0.224], which holds 0:
    not shown; random weights +0.09. See token-erasure-accuracy.

    Source: Feucht et al. 2024, arXiv 2406.20086

    Returns: `probe_prob`, `probe_top` (depth, pos, offset): probability of the true token at pos + offset and the token
    the probe would name; `erasure` (pos, offset), -1 to 1; `psi`, `start`, `end`, `text` (segment); `token_psi` (pos);
    `word_end` (pos), whether the token ends a word of several tokens; `probe_accuracy` (depth, offset) of the probes on
    held-out documents, with `_low` and `_high`; and what the card says of accuracy by depth, one `row` a number:
    `curve_depth`, `curve_offset`, `curve_group`, `curve_accuracy`. Offsets are 0, -1, -2, and -3 where it has probes.
    """

    early: Annotated[int | None, Range(0), "early depth (0 the embedding); default by the rule"] = None
    late: Annotated[int | None, Range(1), "late depth; default by the rule"] = None
    kind: Kind = "factored"

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """States at the two depths; nothing where there are no probes, so that other analyses of the page go on."""
        try:
            probes, *depths = plan(model.identity.key, model.name, self.early, self.late, self.kind)
        except WorkbenchError:
            return ()  # the analysis raises it, in its own place
        return tuple(needs_of(depths, probes.reads_raw).values())

    def analyse(self, observation: Observation) -> xr.Dataset:
        """With the probes of the user's cache.

        Raises UnavailableError without probes, InputError for fewer than three text tokens.
        """
        identity = observation.identity
        return _result(observation, *plan(identity.key, identity.name, self.early, self.late, self.kind))

    def with_probes(self, model: Model, prompt: Any, probes: ReadoutProbes) -> xr.Dataset:
        """The same with probes in hand, such as `train(..., path=...)` or `load_probes(path, ...)` gave."""
        early, late = chosen_depths(probes, self.early, self.late)
        seen = observe(model, prompt, tuple(needs_of((early, late), probes.reads_raw).values()), positions="none")
        return _result(seen, probes, early, late)

    def artifact(self, model: Model) -> str | None:
        """A hash of the probes and of their card."""
        return probes_digest(model, self.early, self.late, self.kind)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A softmax over some 7,600 tokens for six probes: about a fifth of a pass, whatever the length."""
        return 0.2


def _result(observation: Observation, probes: ReadoutProbes, early: int, late: int) -> xr.Dataset:
    tokens = observation.tokens[0]
    first = first_text_position(tokens)
    if len(tokens) - first < 3:
        raise InputError(f"a prompt of {len(tokens) - first} text tokens", "at least three", "Give a longer prompt")
    ids = np.array(tokens.ids)
    states = {depth: observation[need][0, 0] for depth, need in needs_of((early, late), probes.reads_raw).items()}
    offsets = shown_offsets(probes, (early, late))
    reading = read(probes, observation.readout.W_U, states, ids, np.arange(len(ids)), first, offsets)
    starts, ends, psi = segment(erasure(reading, early, late, first))
    starts, ends = starts + first, ends + first
    text = [observation.vocabulary.text(tokens.ids[a : b + 1]) for a, b in zip(starts, ends, strict=True)]
    top = [[["" if i < 0 else observation.vocabulary.string(i) for i in r] for r in p] for p in reading.top.tolist()]
    cell = "depth pos offset"
    return dataset(
        observation,
        {"depth": [early, late], "offset": list(offsets)},
        probe_prob=(cell, reading.prob, "probability", (0, 1), "probability of the true token"),
        probe_top=(cell, np.array(top, dtype=object), "text", None, "token the probe would name"),
        erasure=("pos offset", reading.delta(early, late), "probability", (-1, 1), "erasure (early minus late)"),
        token_psi=("pos", token_psi(len(ids), starts, ends, psi), "psi", (-1, 1), "psi of the token's segment"),
        psi=("segment", psi, "psi", (-1, 1), "erasure score of the segment"),
        start=("segment", starts, "position", (0, None), "first position of the segment"),
        end=("segment", ends, "position", (0, None), "last position of the segment"),
        text=("segment", np.array(text, dtype=object), "text", None, "text of the segment"),
        word_end=("pos", _word_ends(tokens, first), "flag", (0, 1), "last token of a word of several"),
        **_quality(probes, early, late, offsets),
    ).assign_attrs(
        early=early, late=late, kind=probes.kind, probes=probes.digest, corpus=probes.card["corpus"]["name"],
        summary=_summary(probes, psi, text, early, late),
    )  # fmt: skip


def _word_ends(tokens: Tokens, first: int) -> np.ndarray:
    ends = np.zeros(len(tokens), dtype=np.float32)
    ends[[word.end for word in multi_token_words(tokens.spans, first)]] = 1
    return ends


def _quality(probes: ReadoutProbes, early: int, late: int, offsets: tuple[int, ...]) -> dict[str, Any]:
    """How good these probes are, beside every claim that rests on them."""
    card = probes.numbers
    numbers = lambda key: np.array([[_known(card[d, i][key]) for i in offsets] for d in (early, late)])
    spec = ("share of tokens", (0, 1))
    curve = curve_of(probes)
    column = lambda key, dtype: np.array([row[key] for row in curve], dtype=dtype)
    return {
        "probe_accuracy": ("depth offset", numbers("test_accuracy"), *spec, "held-out accuracy of the probe"),
        "probe_accuracy_low": ("depth offset", numbers("test_low"), *spec),
        "probe_accuracy_high": ("depth offset", numbers("test_high"), *spec),
        "curve_depth": ("row", column("depth", np.int64), "depth", (0, None), "depth of a probe"),
        "curve_offset": ("row", column("offset", np.int64), "tokens", (-8, 0), "offset of a probe"),
        "curve_group": ("row", column("group", object), "text", None, "which tokens it was asked on"),
        "curve_accuracy": ("row", column("accuracy", np.float64), *spec, "held-out accuracy by group"),
    }


def curve_of(probes: ReadoutProbes) -> list[dict[str, Any]]:
    """Rows (depth, offset, group, accuracy) of a card: all that `token-erasure-accuracy` measured, else what training
    did, in the groups "last" and "all"."""
    if "accuracy" in probes.card:
        return [row for row in probes.card["accuracy"]["rows"] if row["offset"] in SHOWN]
    groups = {"last": "test_last_accuracy", "all": "test_accuracy"}
    rows = [
        {"depth": row["depth"], "offset": row["offset"], "group": group, "accuracy": row[key]}
        for row in probes.card["probes"]
        for group, key in groups.items()
    ]
    return [row for row in rows if row["accuracy"] is not None and row["offset"] in SHOWN]


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _summary(probes: ReadoutProbes, psi: np.ndarray, text: list[str], early: int, late: int) -> str:
    best = int(np.argmax(psi))
    said = f"The highest psi is {hundredths(psi[best])}, of {text[best]!r}. "
    before, after = (probes.numbers[depth, -1]["test_accuracy"] for depth in (early, late))
    if before is None or after is None:
        return said + f"The quality of these probes is {UNMEASURED}."
    return said + (
        f"The probes name the token before in {before:.0%} of held-out tokens at depth {early} and {after:.0%} at "
        f"depth {late}."
    )


def early_claim(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """What the probes read early at the selected token enters the prediction."""
    return claims.state(result, {**selection, "depth": result.attrs["early"]})


VIEW = View(
    TokenErasure,
    question="At which tokens does the model let go of the pieces of a word?",
    asks=(
        Ask("early", "Compare depth", empty="that of the rule"),
        Ask("late", "with depth", empty="that of the rule"),
        Ask("kind", "by probes of the kind"),
    ),
    figures=(tokens_figure, lines_figure, triangle_figure),
    details=(readout_detail, class_detail),
    claims=(early_claim,),
)
