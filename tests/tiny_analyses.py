"""Analyses made up for a test, with a view: what the page, the shell and the runner do with any analysis."""

import types
from collections.abc import Callable
from typing import Any

from workbench.analysis.kinds import Analysis, Study
from workbench.analysis.view import View


def tiny_view(
    kind: type[Analysis],
    name: str,
    methods: dict[str, Callable],
    *,
    title: str = "",
    fields: dict[str, tuple[Any, Any]] | None = None,
    prompted: bool | None = None,
    **view: Any,
) -> View:
    """A view of an analysis of a kind. methods: as of the kind; fields: (annotation, default) by name."""

    def fill(body: dict[str, Any]) -> None:
        body["__module__"] = next(iter(methods.values())).__module__
        body["__doc__"] = "Made up.\n\nDefinition: what the test says.\nLimits: none.\nSource: here."
        body["__annotations__"] = {field: annotation for field, (annotation, _) in (fields or {}).items()}
        body |= {field: default for field, (_, default) in (fields or {}).items()} | methods
        if prompted is not None:
            body["prompted"] = prompted

    words = {"name": name, "title": title or name.capitalize()}
    made = types.new_class("".join(map(str.capitalize, name.split("-"))), (kind,), words, fill)
    return View(made, **{"question": "What does the test ask?", **view})


def tiny_study(name: str, study: Callable, **more: Any) -> View:
    """A view of a study. study: `(model, tokens, *, progress) -> iterator of Dataset`."""

    def partials(self, model, tokens, *, progress=None, allow_network=False):
        yield from study(model, tokens, progress=progress, **self.values())

    partials.__module__ = study.__module__
    return tiny_view(Study, name, {"partials": partials}, **more)
