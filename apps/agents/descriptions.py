"""Models and analyses as data: what `--json` prints and what tools answer."""

from dataclasses import asdict
from typing import Any

from workbench.analysis.kinds import kind_of
from workbench.analysis.view import View
from workbench.card import ModelCard
from workbench.models.model import Model
from workbench.storage.json_text import strict

__all__ = ["described_analysis", "described_card", "described_model"]


def described_analysis(view: View) -> dict[str, Any]:
    """What an analysis computes, its limits, source, result and parameters."""
    kind = view.analysis
    parameters = [
        {
            "name": one.name,
            "type": one.type.__name__,
            "default": one.default,
            "help": one.help,
            "low": one.low,
            "high": one.high,
            "choices": list(one.choices),
            "or_a_file": one.files,
            "may_be_null": one.optional,
        }
        for one in kind.parameters()
    ]
    said: dict[str, Any] = strict({
        "name": view.name, "title": view.title, "question": view.question, "kind": kind_of(kind),
        "definition": kind.definition, "limits": kind.limits, "source": kind.source, "returns": kind.returns,
        "needs_a_prompt": kind.prompted, "takes_interventions": kind.editable, "parameters": parameters,
    })  # fmt: skip
    return said


def described_model(model: Model) -> dict[str, Any]:
    """Identity, sizes, and every item of the self-check with what was measured."""
    check = model.selfcheck
    items = [] if check is None else [asdict(item) for item in check.items]
    passed = None if check is None else check.passed
    said: dict[str, Any] = strict({
        "identity": asdict(model.identity),
        "sizes": asdict(model.sizes),
        "selfcheck": {"passed": passed, "items": items},
    })  # fmt: skip
    return said


def described_card(model: Model, card: ModelCard) -> dict[str, Any]:
    """What `described_model` says, how the model is built, which analyses apply, and what is kept of it on disk."""
    whole = {name: value for name, value in asdict(card).items() if name not in ("identity", "sizes", "selfcheck")}
    said: dict[str, Any] = strict(described_model(model) | whole)
    return said
