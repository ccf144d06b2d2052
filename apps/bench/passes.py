"""What is timed of one pass: bare, observed, and what analyses do after it.

Each is `(subject) ->` a callable without arguments, which is what is timed; those with parameters make one.
"""

from collections.abc import Callable
from typing import Any

import torch
import xarray as xr

from apps.bench.subject import Prepare, Subject, Timed
from probes import CATALOG
from workbench.analysis.kinds import OnModel, OnPrompt
from workbench.analysis.run import finished
from workbench.observation import Need, observe

__all__ = ["after", "bare", "bridge", "capture", "everything", "half", "products"]


def bare(subject: Subject) -> Timed:
    """The model as a user of transformers runs it."""
    ids = subject.ids

    @torch.no_grad()
    def forward() -> torch.Tensor:
        logits: torch.Tensor = subject.bare(ids, use_cache=False).logits
        return logits

    return forward


def bridge(subject: Subject) -> Timed:
    """The instrumented model (eager attention, hook points) with nothing watching."""
    ids = subject.ids

    @torch.no_grad()
    def forward() -> torch.Tensor:
        with subject.model.lock:
            return subject.model.adapter.forward(ids)

    return forward


def capture(*names: str, fields: Callable[[Subject], dict[str, torch.Tensor]] | None = None, **params: Any) -> Prepare:
    """One observed pass with the needs of the named analyses; fields: what their reducers expect from a stimulus."""

    def prepare(subject: Subject) -> Timed:
        needs = [need for name in names for need in _needs(subject, _analysis(name, params))]
        extra = fields(subject) if fields else {}
        return lambda: observe(subject.model, subject.tokens, needs, fields=extra)

    return prepare


def after(name: str, **params: Any) -> Prepare:
    """What an analysis of the prompt does after the pass, for every prompt, from an observation that is there."""

    def prepare(subject: Subject) -> Timed:
        analysis = _analysis(name, params)
        observation = observe(subject.model, subject.tokens, _needs(subject, analysis))
        parts = [observation.prompt(row) for row in range(len(subject.tokens))]
        return lambda: [analysis.analyse(part) for part in parts]

    return prepare


def products(name: str, *, block: int = 128, **params: Any) -> Prepare:
    """The unembedding products alone of an analysis that keeps states `[layer, prompt, pos, d_model]`, in blocks."""

    def prepare(subject: Subject) -> Timed:
        needs = _needs(subject, _analysis(name, params))
        observation = observe(subject.model, subject.tokens, needs)
        states = torch.cat([observation[need].flatten(0, -2) for need in needs])
        W_U = subject.model.readout.W_U.detach()

        def multiply() -> None:
            for rows in states.split(block):
                torch.nn.functional.linear(rows, W_U)

        return multiply

    return prepare


def everything(subject: Subject) -> Callable[[], list[xr.Dataset]]:
    """All analyses of the prompt that can run, from one shared pass, with what they do after it, for every prompt."""
    model, tokens = subject.model, subject.tokens
    all_of_prompts = [view.analysis() for view in CATALOG.views if view.analysis.shares_pass]
    analyses = [analysis for analysis in all_of_prompts if analysis.refusal(model) is None and analysis.ready(model)]

    def run() -> list[xr.Dataset]:
        needs = [need for analysis in analyses for need in _needs(subject, analysis)]
        length = len(tokens[0])
        read = {position % length for analysis in analyses for position in analysis.read_positions(length)}
        observation = observe(model, tokens, needs, positions=sorted(read) or "last")
        parts = [observation.prompt(row) for row in range(len(tokens))]
        return [
            finished(analysis, analysis.analyse(part), model, part.tokens[0]) for part in parts for analysis in analyses
        ]

    return run


def _analysis(name: str, params: dict[str, Any]) -> OnPrompt | OnModel:
    made: OnPrompt | OnModel = CATALOG.view(name).analysis.of(params)
    return made


def _needs(subject: Subject, analysis: OnPrompt | OnModel) -> tuple[Need, ...]:
    if isinstance(analysis, OnPrompt):
        return analysis.needs(subject.model, subject.tokens[0])
    return analysis.needs(subject.model, subject.tokens)


def half(subject: Subject) -> dict[str, torch.Tensor]:
    """Fields of an induction stimulus whose period is half its length: the attention that is read, not its meaning."""
    period = torch.full((len(subject.tokens),), (len(subject.tokens[0]) - 1) // 2)
    return {"lag": period, "period": period}
