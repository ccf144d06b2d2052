"""What a causal study measures of a run: one number per run from its last state of the residual stream.

A metric is a frozen value. It reads states through the model's readout at the positions it needs only, so that a sweep
over hundreds of edited runs never holds their logits at all positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, log2
from types import MappingProxyType
from typing import Any

import torch

from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.models.spans import Spans
from workbench.models.target import Target, likelier, need_apart, shared_start, target_of
from workbench.observation.repeats import previous_occurrence
from workbench.words import counted

__all__ = ["KINDS", "TARGET", "Metric", "followed_by", "going_on", "in_steps", "make_metric"]

KINDS = ("logit difference", "log-probability", "KL", "loss", "repetition")
TARGET = 'what is predicted: text or ids (#17) of one token or several in a row, or a set such as ["4", "5"]'
_UNITS = {"logit difference": "logits", "log-probability": "nats", "KL": "nats"}
_UNITS |= {"loss": "nats per token", "repetition": "nats per token"}
_OF_TARGETS = ("logit difference", "log-probability")
_NO_TARGETS: Mapping[str, Target | None] = MappingProxyType({"target": None, "against": None})
_ROWS = 128  # rows of logits held at once
_FEW_DIGITS = (torch.bfloat16, torch.float16)
_STEP = 0.005  # logits: sentences tell hundredths


@dataclass(frozen=True, eq=False)
class Metric:
    """One number of a run.

    kind: "logit difference" (target minus against; the target's logit alone without `against`), "log-probability" of
    the target (minus that of `against`), "KL" from `reference` to the run (0 where they agree), "loss", the mean
    surprisal of `ids` over positions >= 1, or "repetition", the mean log-probability at every repeated token of what
    followed it the last time. position: where the first three look. reference: log-probabilities `[d_vocab]`. repeats:
    (position, id of what followed the last time), of "repetition".

    target, against: targets, or the id of one token. Of several tokens, log-probabilities are summed: the run must go
    on behind the position with what `followed_by` puts there. Of a set, probabilities are summed, and of logits their
    exponentials.
    note: what to say of the target beside the number; coarse: of its digits, also beside a mean over prompts.
    """

    kind: str
    target: Target
    against: Target | None = None
    position: int = -1
    ids: tuple[int, ...] = ()
    reference: torch.Tensor | None = None
    repeats: tuple[tuple[int, int], ...] = ()
    note: str = ""
    coarse: str = ""

    def __post_init__(self) -> None:
        for name in ("target", "against"):
            if isinstance(token_id := getattr(self, name), int):
                object.__setattr__(self, name, Target.one(token_id))

    @property
    def units(self) -> str:
        """Logits or nats."""
        return _UNITS[self.kind]

    def describe(self, vocabulary: Any) -> str:
        """In words, with the tokens."""
        target = self.target.describe(vocabulary)
        minus = "" if self.against is None else f" minus {self.against.describe(vocabulary)}"
        repeated = counted(len(self.repeats), "repeated token")
        return {
            "logit difference": f"logit of {target}{minus}",
            "log-probability": f"log-probability of {target}{minus}",
            "KL": "KL from the unedited prediction to the edited one",
            "loss": "mean surprisal of the prompt's tokens",
            "repetition": f"mean log-probability of what came next the last time ({repeated})",
        }[self.kind]

    def tokens(self, vocabulary: Any) -> dict[str, str]:
        """`target` and `against` for people, and `target_ids` and `against_ids`, which ask for this metric again; an
        empty text where there is none, and where the metric is of no target."""
        named = {"target": self.target, "against": self.against} if self.kind in _OF_TARGETS else _NO_TARGETS
        labels = {name: "" if one is None else one.label(vocabulary) for name, one in named.items()}
        return labels | {f"{name}_ids": "" if one is None else one.written for name, one in named.items()}

    def noted(self, sentence: str) -> str:
        """A sentence with what is to be said of the target and of its digits."""
        return " ".join(filter(None, (sentence, self.note, self.coarse)))

    @property
    def length(self) -> int:
        """How many tokens in a row it looks at: more than one for targets of several."""
        if self.kind not in _OF_TARGETS:
            return 1
        return max(one.length for one in (self.target, self.against) if one is not None)

    def needed(self, n_pos: int) -> list[int]:
        """Positions whose last states it reads."""
        if self.kind == "repetition":
            return [position for position, _ in self.repeats]
        first = self.position % n_pos
        return list(range(n_pos - 1)) if self.kind == "loss" else list(range(first, first + self.length))

    def of_states(self, states: torch.Tensor, readout: Any) -> torch.Tensor:
        """The metric `[run]` of the last resid_post at the `needed` positions, `[run, position, d_model]`."""
        runs, n = states.shape[:2]
        step = max(1, _ROWS // n)
        parts = [
            self.of_logits(readout.logits(states[i : i + step]).float()) for i in range(0, runs, step)
        ]  # few rows at a time
        return torch.cat(parts) if parts else states.new_empty(0)

    def of_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """The metric of logits `[run, position, d_vocab]` at the needed positions; keeps gradients. Returns `[run]`."""
        if self.kind in ("loss", "repetition"):
            wanted = self.ids[1:] if self.kind == "loss" else [following for _, following in self.repeats]
            labels = torch.tensor(wanted, device=logits.device)
            found = logits.log_softmax(-1)[:, torch.arange(len(labels)), labels].mean(-1)
            return -found if self.kind == "loss" else found
        logs = logits if self.kind == "logit difference" and self.length == 1 else logits.log_softmax(-1)
        if self.kind != "KL":
            against = 0.0 if self.against is None else _score(logs, self.against)
            return _score(logs, self.target) - against
        logs = logs[:, 0]
        assert self.reference is not None, "make_metric() gives KL its reference"
        reference = self.reference.to(logs)
        return (reference.exp() * (reference - logs)).sum(-1).clamp_min(0.0)


def make_metric(
    model: Model,
    tokens: Tokens,
    logits: torch.Tensor,
    *,
    kind: str = "logit difference",
    target: str = "",
    against: str = "",
    position: int = -1,
) -> Metric:
    """A metric for a prompt, from texts as `target_of` reads them.

    logits: of the unedited run at `position`, `[d_vocab]`: an empty target is its top token, and KL is taken from it.
    What is given to a metric of no target is named in its note. Targets of several tokens need a prompt that goes on
    with them (`followed_by`), and position -1, its own end. Raises InputError for such ones elsewhere, for their logit
    alone, an unknown kind, a position outside the prompt, or targets that overlap.
    """
    if kind not in KINDS:
        raise InputError(f"the metric {kind!r}", f"one of {', '.join(KINDS)}", "Choose one of these")
    tokens.place(position)
    vocabulary = model.vocabulary
    wanted = target_of(vocabulary, target) if target else Target.one(int(logits.argmax()))
    other = target_of(vocabulary, against) if against else None
    if other is not None:
        need_apart(vocabulary, wanted, other)
    if kind == "loss" and len(tokens) < 2:
        raise InputError("the loss of a one-token prompt", "two tokens or more", "Choose another metric")
    reference = logits.float().log_softmax(-1) if kind == "KL" else None
    repeats = _repeats(tokens) if kind == "repetition" else ()
    metric = Metric(kind, wanted, other, position, tokens.ids, reference, repeats, coarse=in_steps(model, logits))
    if kind not in _OF_TARGETS:
        aside = [one.describe(vocabulary) for text, one in ((target, wanted), (against, other)) if text and one]
        verb = "was" if len(aside) == 1 else "were"
        unused = f"The metric {kind!r} is of no target: {' and '.join(aside)} {verb} not used." if aside else ""
        return replace(metric, note=unused)
    if metric.length > 1:
        metric = _at_end(metric, tokens, vocabulary)
    log_probs = logits.float().log_softmax(-1)
    notes = [likelier(vocabulary, text, log_probs) for text in (target, against) if text]
    return replace(metric, note=" ".join(filter(None, notes)))


def in_steps(model: Model, logits: torch.Tensor) -> str:
    """What is to be said of logits that a model gives in few digits: how far apart they lie, where that is as large as
    what sentences tell; else nothing."""
    dtype = model.readout.W_U.dtype
    if dtype not in _FEW_DIGITS:
        return ""
    largest = float(logits[logits.isfinite()].abs().amax()) if logits.isfinite().any() else 0.0  # -inf: never said
    if not largest:
        return ""
    step = torch.finfo(dtype).eps * 2.0 ** floor(log2(largest))
    name = str(dtype).removeprefix("torch.")
    return (
        f"Logits in {name} lie {step:.2g} apart here: differences of that size may be rounding." if step > _STEP else ""
    )


def _at_end(metric: Metric, tokens: Tokens, vocabulary: Any) -> Metric:
    """With its position where a prompt ends that goes on with the targets; InputError where it cannot be measured."""
    if metric.kind == "logit difference" and metric.against is None:
        raise InputError(
            f"a logit of {metric.target.describe(vocabulary)}",
            "a target of one token, or one to compare it with",
            "Choose the metric log-probability",
        )
    start = shared_start([one for one in (metric.target, metric.against) if one is not None], vocabulary)
    if metric.position != -1 or tokens.ids[len(tokens) - len(start) :] != start:
        raise InputError(
            f"{metric.target.describe(vocabulary)} at position {metric.position}",
            "a target of one token there, or position -1 of a prompt that goes on with the target",
            "Choose one token, or measure at the last position",
        )
    return replace(metric, position=len(tokens) - 1 - len(start))


def going_on(model: Model, kind: str, target: str, against: str = "") -> tuple[int, ...]:
    """The tokens that must follow a prompt, so that one run tells the probability of every token of its targets: all
    but the last one; none where they are single tokens, or where the metric is of no target."""
    targets = [target_of(model.vocabulary, text) for text in (target, against) if text]
    return shared_start(targets, model.vocabulary) if targets and kind in _OF_TARGETS else ()


def followed_by(model: Model, tokens: Tokens, more: Sequence[int]) -> Tokens:
    """A prompt that goes on with more tokens; words are still looked for in its own text. InputError where that is
    longer than n_ctx, or where the model carries interventions at positions counted from the end: it is another one."""
    if not more:
        return tokens
    _need_counted(model, tokens, more)
    if len(tokens) + len(more) > model.sizes.n_ctx:
        raise InputError(
            f"a prompt of {counted(len(tokens), 'token')} and a target of {len(more) + 1}",
            f"at most {model.sizes.n_ctx} for {model.name}",
            "Shorten the prompt",
        )
    end = len(tokens.text)
    strings = (*tokens.strings, *map(model.vocabulary.string, more))
    spans = Spans(tokens.text, (*tokens.spans.ends, *[(end, end)] * len(more)))
    return replace(tokens, ids=(*tokens.ids, *more), strings=strings, spans=spans)


def _need_counted(model: Model, tokens: Tokens, more: Sequence[int]) -> None:
    """InputError for interventions whose last token would be one of the target's, and no longer the prompt's, for those
    at a place that the prompt alone has not, and for runs of the prompt alone."""
    longer = len(tokens) + len(more)
    for one in model.interventions:
        edits, keys = one.edits(model), getattr(one, "keys", None) or ()
        got = f"{one} beside a target of several tokens, with which the prompt goes on"
        hidden = getattr(getattr(one, "unit", None), "key", None)
        named = [at for edit in edits for at in edit.where.positions or ()]
        named += [*keys, *([] if hidden is None else [hidden])]
        if beyond := [at for at in named if at >= len(tokens)]:
            inside = f"positions from 0 to {len(tokens) - 1}"
            raise InputError(f"position {min(beyond)} of {one}", inside, "Choose one inside the prompt")
        if behind := [at for at in named if at < 0]:
            raise InputError(
                got,
                f"positions counted from the first token: position {max(behind)} would be one of the target's",
                f"Write {len(tokens) + max(behind)} for {max(behind)}",
            )
        if short := [edit.length for edit in edits if edit.length not in (None, longer)]:
            raise InputError(
                got,
                f"a recorded run of {longer} tokens, not {short[0]}: of a prompt with all but the target's last token",
                "Record that, or take a target of one token",
            )


def _score(logs: torch.Tensor, target: Target) -> torch.Tensor:
    """Logits or log-probabilities `[run, position, d_vocab]` of a target, `[run]`; keeps gradients."""
    if target.length == 1 and len(target.members) > 1:
        return logs[:, 0, [member[0] for member in target.members]].logsumexp(-1)
    of_member = lambda member: torch.stack([logs[:, at, token_id] for at, token_id in enumerate(member)]).sum(0)
    each = [of_member(member) if len(member) > 1 else logs[:, 0, member[0]] for member in target.members]
    return each[0] if len(each) == 1 else torch.stack(each).logsumexp(0)


def _repeats(tokens: Tokens) -> tuple[tuple[int, int], ...]:
    """Positions whose token last occurred three or more places earlier, each with the id that followed it then."""
    ids = torch.tensor([tokens.ids])
    previous = previous_occurrence(ids, torch.ones_like(ids, dtype=torch.bool))[0].tolist()
    found = tuple((here, tokens.ids[before + 1]) for here, before in enumerate(previous) if before >= 0)
    if not found:
        raise InputError(
            "a prompt none of whose tokens last occurred three or more places earlier",
            "one that does, for the metric 'repetition'",
            "Choose another prompt or metric",
        )
    return found
