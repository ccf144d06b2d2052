"""What a causal study measures of a run: one number per run from its last state of the residual stream.

A metric is a frozen value. It reads states through the model's readout at the positions it needs only, so that a sweep
over hundreds of edited runs never holds their logits at all positions.
"""

from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.observation.repeats import previous_occurrence

__all__ = ["KINDS", "Metric", "make_metric"]

KINDS = ("logit difference", "log-probability", "KL", "loss", "repetition")
_UNITS = {"logit difference": "logits", "log-probability": "nats", "KL": "nats"}
_UNITS |= {"loss": "nats per token", "repetition": "nats per token"}
_ROWS = 128  # rows of logits held at once


@dataclass(frozen=True, eq=False)
class Metric:
    """One number of a run.

    kind: "logit difference" (target minus against; the target's logit alone without `against`), "log-probability" of
    the target (minus that of `against`), "KL" from `reference` to the run (0 where they agree), "loss", the mean
    surprisal of `ids` over positions >= 1, or "repetition", the mean log-probability at every repeated token of what
    followed it the last time. position: where the first three look. reference: log-probabilities `[d_vocab]`. repeats:
    (position, id of what followed the last time), of "repetition".
    """

    kind: str
    target: int
    against: int | None = None
    position: int = -1
    ids: tuple[int, ...] = ()
    reference: torch.Tensor | None = None
    repeats: tuple[tuple[int, int], ...] = ()

    @property
    def units(self) -> str:
        """Logits or nats."""
        return _UNITS[self.kind]

    def describe(self, vocabulary: Any) -> str:
        """In words, with the tokens."""
        target = repr(vocabulary.string(self.target))
        minus = "" if self.against is None else f" minus {vocabulary.string(self.against)!r}"
        n = len(self.repeats)
        repeated = f"{n} repeated token{'s' if n > 1 else ''}"
        return {
            "logit difference": f"logit of {target}{minus}",
            "log-probability": f"log-probability of {target}{minus}",
            "KL": "KL from the unedited prediction to the edited one",
            "loss": "mean surprisal of the prompt's tokens",
            "repetition": f"mean log-probability of what came next the last time ({repeated})",
        }[self.kind]

    def tokens(self, vocabulary: Any) -> dict[str, str]:
        """The `target` and `against` that ask for this metric again; an empty text where there is none."""
        named = {"target": self.target, "against": self.against}
        return {name: "" if token is None else vocabulary.string(token) for name, token in named.items()}

    def needed(self, n_pos: int) -> list[int]:
        """Positions whose last states it reads."""
        if self.kind == "repetition":
            return [position for position, _ in self.repeats]
        return list(range(n_pos - 1)) if self.kind == "loss" else [self.position % n_pos]

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
        last = logits[:, 0]
        logs = last if self.kind == "logit difference" else last.log_softmax(-1)
        if self.kind != "KL":
            return logs[:, self.target] - (0.0 if self.against is None else logs[:, self.against])
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
    """A metric for a prompt, from texts.

    logits: of the unedited run at `position`, `[d_vocab]`: an empty target is its top token, and KL is taken from it.
    Raises InputError for a text that is not one token (offering its first), an unknown kind, or twice the same token.
    """
    if kind not in KINDS:
        raise InputError(f"the metric {kind!r}", f"one of {', '.join(KINDS)}", "Choose one of these")
    wanted = model.vocabulary.token(target) if target else int(logits.argmax())
    other = model.vocabulary.token(against) if against else None
    if other == wanted:
        raise InputError(
            f"the same token {model.vocabulary.string(wanted)!r} twice", "two tokens", "Choose another one"
        )
    if kind == "loss" and len(tokens) < 2:
        raise InputError("the loss of a one-token prompt", "two tokens or more", "Choose another metric")
    reference = logits.float().log_softmax(-1) if kind == "KL" else None
    repeats = _repeats(tokens) if kind == "repetition" else ()
    return Metric(kind, wanted, other, position, tokens.ids, reference, repeats)


def _repeats(tokens: Tokens) -> tuple[tuple[int, int], ...]:
    """Positions whose token occurred before, each with the id that followed it then."""
    ids = torch.tensor([tokens.ids])
    previous = previous_occurrence(ids, torch.ones_like(ids, dtype=torch.bool))[0].tolist()
    found = tuple((here, tokens.ids[before + 1]) for here, before in enumerate(previous) if before >= 0)
    if not found:
        raise InputError(
            "a prompt that repeats no token three or more places later",
            "one that does, for the metric 'repetition'",
            "Choose another prompt or metric",
        )
    return found
