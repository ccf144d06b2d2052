"""What an explanation has found so far: one result that grows step by step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from probes.circuits.graph.tasks import Pair
from probes.explain.contrasts import shown_text
from probes.explain.parts import Part
from probes.explain.sentences import said
from probes.explain.steps import STEPS
from workbench.analysis.results import dataset
from workbench.models.model import Model
from workbench.statistics import bootstrap_interval, ratio_interval, sign_flip_test, wilson_interval

__all__ = ["HOLDS", "Found", "behaviour_found", "faithful_found", "pairs_found", "parts_found"]

HOLDS = 0.5  # of a pair's own difference, that a circuit must keep to hold on it


@dataclass(eq=False)
class Found:
    """Parts of the result, by step. costs: forward passes of each step, told before it runs. note: said beside the
    finding."""

    model: Model
    costs: dict[str, float]
    smallest: float
    note: str = ""
    parts: list[xr.Dataset] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)

    def add(
        self, step: str, some: xr.Dataset, attrs: Mapping[str, Any] | None = None, *, complete: bool = True
    ) -> xr.Dataset:
        """What a step found; in place of what it had found so far. Returns the whole."""
        some = some.drop_attrs(deep=False).assign_attrs(step=step)
        self.parts = [one for one in self.parts if one.attrs["step"] != step] + [some]
        self.attrs |= dict(attrs or {})
        if complete:
            self.finish(step)
        return self.result()

    def finish(self, step: str) -> None:
        """A step is done, whatever it found."""
        if step not in self.done:
            self.done.append(step)

    def result(self) -> xr.Dataset:
        """All of it, with its sentence and its steps."""
        merged = xr.merge([one.drop_attrs(deep=False) for one in self.parts], compat="override", join="outer")
        steps = [{"step": name, "what": what, "forwards": round(self.costs[name], 1), "done": name in self.done}
                 for name, what in STEPS.items()]  # fmt: skip
        merged = merged.assign_attrs(**self.attrs, smallest=self.smallest, steps=json.dumps(steps))
        return merged.assign_attrs(summary=" ".join(filter(None, (said(merged), self.note))))


def pairs_found(model: Model, test: Sequence[Pair]) -> xr.Dataset:
    """The test pairs as texts, `pair_clean`, `pair_corrupt`, `pair_answer`, `pair_wrong` (prompt)."""
    texts = {
        "clean": ("the clean prompt", [shown_text(model, pair.clean) for pair in test]),
        "corrupt": ("the counterfactual prompt", [shown_text(model, pair.corrupt) for pair in test]),
        "answer": ("the answer", [pair.answers.label(model.vocabulary) for pair in test]),
        "wrong": ("the wrong answer", [pair.wrong.label(model.vocabulary) for pair in test]),
    }
    text = lambda values: np.array(values, dtype=object)
    variables: dict[str, Any] = {
        f"pair_{name}": ("prompt", text(values), "text", None, label) for name, (label, values) in texts.items()
    }
    return dataset(None, **variables)


def behaviour_found(whole: np.ndarray, empty: np.ndarray) -> xr.Dataset:
    """What the model does on the test pairs. whole, empty: the metric on clean and counterfactual prompts, `[pair]`."""
    gap = whole - empty
    low, high = bootstrap_interval(gap)
    return dataset(
        None,
        pair_model=("prompt", whole, "logits", None, "logit of the answer minus that of the wrong one"),
        pair_counterfactual=("prompt", empty, "logits", None, "the same on the counterfactual prompt"),
        answer=("", float(whole.mean()), "logits", None, "answer minus wrong answer, mean over pairs"),
        counterfactual=("", float(empty.mean()), "logits", None, "the same on counterfactual prompts"),
        gap=("", float(gap.mean()), "logits", None, "what the swap changes, mean over pairs"),
        gap_low=("", float(low), "logits", None, "lower end of its 95 % interval over pairs"),
        gap_high=("", float(high), "logits", None, "upper end of its 95 % interval over pairs"),
        answer_p=("", float(sign_flip_test(whole)), "p", (0, 1), "p that the answer is not preferred, by sign flips"),
        gap_p=("", float(sign_flip_test(gap)), "p", (0, 1), "p that the swap changes nothing, by sign flips"),
        accuracy=("", float((whole > 0).mean()), "share", (0, 1), "pairs that the model gets right"),
    )


def faithful_found(whole: np.ndarray, empty: np.ndarray, kept: np.ndarray, rest: np.ndarray) -> xr.Dataset:
    """How the circuit does pair by pair, and the two shares with intervals. kept, rest: the metric with the circuit's
    edges alone, and with all others, `[pair]`."""
    gap = whole - empty
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(gap > 0, (kept - empty) / gap, np.nan)
    known = np.isfinite(share)
    holds = np.where(known, share >= HOLDS, np.nan)
    n_holds, n = int(np.nansum(holds)), int(known.sum())
    low, high = wilson_interval(n_holds, n) if n else (np.nan, np.nan)
    left = ratio_interval(rest - empty, gap)
    return dataset(
        None,
        pair_circuit=("prompt", kept, "logits", None, "the metric with the circuit alone"),
        pair_without=("prompt", rest, "logits", None, "the metric without the circuit"),
        pair_share=("prompt", share, "share", None, "of the pair's own difference that the circuit keeps"),
        pair_holds=("prompt", holds, "flag", (0, 1), f"keeps at least {HOLDS:g} of the pair's difference"),
        holds=("", n_holds / n if n else np.nan, "share", (0, 1), "pairs on which the circuit holds"),
        holds_low=("", float(low), "share", (0, 1), "lower end of its 95 % interval"),
        holds_high=("", float(high), "share", (0, 1), "upper end of its 95 % interval"),
        completeness_low=("", float(left[0]), "share", None, "completeness, lower end of its 95 % interval"),
        completeness_high=("", float(left[1]), "share", None, "completeness, upper end of its 95 % interval"),
    )


def parts_found(parts: Sequence[Part], worth: dict[tuple[int, int], float], capped: bool = False) -> xr.Dataset:
    """What the parts do, one row each (component). worth: f that the circuit loses without a node. capped: whether
    logits go through a soft cap, which a part alone does not."""
    own = "its own part in the answer" + (", before the soft cap" if capped else "")
    text = lambda values: np.array(list(values), dtype=object)
    shown = lambda tokens: ", ".join(map(repr, tokens))
    label = lambda part: "; ".join(part.labels)
    return dataset(
        None,
        {"label": ("component", [part.name for part in parts])} if parts else None,  # by which two results are aligned
        part_name=("component", text(part.name for part in parts), "text", None, "part of the circuit"),
        part_layer=("component", [part.layer for part in parts], "layer", (0, None), "its layer"),
        part_head=("component", [part.head if part.head >= 0 else np.nan for part in parts], "head", (0, None),
                   "its head; an MLP has none"),
        part_worth=("component", [worth.get((part.layer, part.head), np.nan) for part in parts], "share", None,
                    "faithfulness that the circuit loses without it, on the pairs it was searched on"),
        part_pos=("component", [part.pos for part in parts], "position", (0, None), "where it is read off"),
        part_looks_at=("component", [part.looks_at for part in parts], "position", (0, None), "key it looks at most"),
        part_weight=("component", [part.weight for part in parts], "share of attention", (0, 1), "attention to it"),
        part_raises=("component", text(shown(part.raises) for part in parts), "text", None, "tokens it raises most"),
        part_lowers=("component", text(shown(part.lowers) for part in parts), "text", None, "tokens it lowers most"),
        part_direct=("component", [part.direct for part in parts], "logits", None, own),
        part_label=("component", text(label(part) for part in parts), "text", None, "labels it earns, with their q"),
    )  # fmt: skip
