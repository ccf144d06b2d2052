"""An analysis in words, before it is run: what it asks and computes, its limits, its parameters."""

import textwrap

from apps.cli.parameters import option
from apps.cli.report.summary import WIDTH
from workbench.analysis.kinds import Analysis, OnModel
from workbench.analysis.parameters import Parameter
from workbench.analysis.view import View
from workbench.models.selfcheck import LOGITS_EQUAL

__all__ = ["description"]


def description(view: View) -> str:
    """The question it answers, its definition, limits, source and result, and each parameter with range and default."""
    analysis = view.analysis
    lines = [f"{view.name}: {view.title} ({_kind(analysis)})", *textwrap.wrap(view.question, WIDTH)]
    sections = {
        "Computes": analysis.definition,
        "Limits": analysis.limits,
        "Source": analysis.source,
        "Returns": analysis.returns,
        "Refuses models that fail": ", ".join((LOGITS_EQUAL, *analysis.requires)),
        "Interventions": "" if analysis.editable else "refused: what it stands on was made on the model as it is",
    }
    for head, text in sections.items():
        if text:
            lines += _paragraphs(f"{head}: {text}")
    own, drawn = analysis.parameters(), view.display_parameters
    lines.append(f"Parameters ({_how(own[0])}):" if own else "Parameters: none")
    lines += map(_parameter, own)
    if drawn:
        lines.append(f"Of the figures alone ({_how(drawn[0])}):")
        lines += map(_parameter, drawn)
    return "\n".join(lines)


def _kind(analysis: type[Analysis]) -> str:
    if issubclass(analysis, OnModel):
        return "makes its own stimulus; needs no prompt"
    if analysis.shares_pass:
        return "needs a prompt"
    return "takes several passes; " + ("needs a prompt" if analysis.prompted else "needs no prompt")


def _paragraphs(text: str) -> list[str]:
    """Lines of a section; all but the first are indented."""
    wrapped = (
        textwrap.wrap(paragraph, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        for paragraph in text.split("\n\n")
    )
    first, *others = (line for lines in wrapped for line in lines)
    return [first.lstrip(), *others]


def _how(parameter: Parameter) -> str:
    """`--top-k VALUE, or --param top_k=VALUE`."""
    words = f"{option(parameter)} or --no-{option(parameter)[2:]}" if parameter.type is bool else ""
    return f"{words or f'{option(parameter)} VALUE'}, or --param {parameter.name}=VALUE"


def _parameter(parameter: Parameter) -> str:
    """`  top_k=10  (int, 1 to 100)  tokens listed per cell`."""
    if parameter.choices:
        span = f", one of {', '.join(map(str, parameter.choices))}"
        span += ", a file, a folder, or hub:NAME" if parameter.files else ""
    elif parameter.low is not None or parameter.high is not None:
        low, high = ("any" if bound is None else f"{bound:g}" for bound in (parameter.low, parameter.high))
        span = f", {low} to {high}"
    else:
        span = ""
    kind = parameter.type.__name__ + (" or none" if parameter.optional else "")
    default = str(parameter.default).lower() if isinstance(parameter.default, bool) else parameter.default
    return f"  {parameter.name}={default}  ({kind}{span})  {parameter.help}"
