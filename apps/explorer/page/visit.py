"""A visit as one page to send: every step with its sentence, its figure, its Python and what computed it."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import xarray as xr
from pydantic import ValidationError

from apps.explorer.engine.engine import Engine
from apps.explorer.page import comparison as comparing
from apps.explorer.page import exports, tables, views
from apps.explorer.page.graphs import GRAPH_CONFIG
from apps.explorer.page.news import request_of
from apps.explorer.page.pins import pinned
from apps.explorer.page.results import analysis_of, result_of
from apps.explorer.page.state import Asked, Link, Step, Visit
from apps.template import render
from workbench.errors import InputError, WorkbenchError, in_words
from workbench.storage.record import record_of
from workbench.words import counted

__all__ = ["visit_page"]

_HEIGHT, _LOW = 480, 180  # pixels of a figure, and of a small multiple


def visit_page(engine: Engine, visit: Visit, session: str) -> str:
    """The page, with the plotting library in it. A step whose result is no longer kept says so, and stays.

    Nothing is computed: what was seen is drawn from what is kept.
    """
    from plotly.offline import get_plotlyjs

    steps = [_step(engine, step, session) for step in visit.steps]
    texts = [""] + [step["prompt"] for step in steps]
    for before, step in zip(texts, steps, strict=False):  # the list of steps says where another prompt begins
        step["begins"] = step["prompt"] if step["prompt"] != before else ""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    made = f"Made by the workbench on {now}: {counted(len(steps), 'step')}."
    return render("explorer/page/visit.html", title="A visit", made=made, plotly=get_plotlyjs(), steps=steps)


def _step(engine: Engine, step: Step, session: str) -> dict[str, Any]:
    link = step.link
    filled: dict[str, Any] = {
        "title": step.title, "said": step.said, "note": step.note, "star": "★ " if step.star else "",
        "prompt": link.text, "about": _about(link), "why": "", "drawn": "", "code": "", "record": "",
        "shared": "", "pins": [],
        "link": _address(link),
    }  # fmt: skip
    try:
        return filled | _drawn(engine, link, session)
    except Exception as error:  # a library's own too: one step that cannot be drawn costs itself alone
        why = str(error) if isinstance(error, WorkbenchError) else in_words(error)
        return filled | {"why": f"It could not be drawn here. {why}"}


def _address(link: Link) -> str:
    """What stands behind a page's address to show the step there: `#model=...`, as `page/assets/links.js` reads it."""
    given = link.model_dump(mode="json", exclude_defaults=True, by_alias=True, exclude={"broken"})
    given = {"prompt" if name == "text" else "other-model" if name == "otherModel" else name: value
             for name, value in given.items()}  # fmt: skip
    texts = {name: value if isinstance(value, str) and name != "aligned" else json.dumps(value, ensure_ascii=False)
             for name, value in given.items()}  # fmt: skip
    return f"#{urlencode(texts)}"


def _about(link: Link) -> str:
    """What was looked at, in words."""
    parts = [f"Model {link.model}"]
    own = link.params.get(link.view.name, {}) if link.view else {}
    parts += [f"with {', '.join(f'{name} {value!r}' for name, value in own.items())}"] if own else []
    parts += [f"changed: {', '.join(link.edits)}"] if link.edits else []
    parts += ["through the chat template"] if link.chat else []
    parts += [f"beside {len(link.pins)} pinned prompts"] if link.pins else []
    parts += [f"beside {link.other!r}"] if link.other else []
    parts += [f"beside the model {link.other_model}"] if link.other_model else []
    return "; ".join(parts)


def _drawn(engine: Engine, link: Link, session: str) -> dict[str, Any]:
    """Figure or table of a step, its code and its record. WorkbenchError where there is none any more."""
    if link.view is None:
        raise InputError("a step without a view", "one of this page's", "Take it again")
    seen, index = engine.views[link.view.name], link.view.figure
    shown, display = _asked(engine, link), link.display.get(link.view.name, {})
    beside = _pinned(engine, link, shown)
    find = lambda run: result_of(engine, run, seen.name, link.select, session)
    if link.compare == "difference":
        other = _other(engine, link)
        change = comparing.change(find, shown, other)
        figure = comparing.entitled(views.changed(seen, change, index, False, display), shown, other)
        about = f"{_about(link)}{_weights(change)}"
        return {"drawn": _html(figure), "record": _record(change), "about": about, **beside}
    result, why = find(shown)
    if result is None:
        raise InputError(f"no result of {seen.title} ({why})", "one that is kept", "Show the step again")
    request = request_of(engine, shown)
    analysis = analysis_of(engine, request, seen.name, link.select)
    assert analysis is not None, "a result has an analysis"
    code = exports.code(seen, request, analysis, index, display, engine.settings.held)
    about = f"{_about(link)}{_weights(result)}"
    return {
        "drawn": _shown(seen, result, index, display), "code": code, "record": _record(result), "about": about, **beside
    }  # fmt: skip


def _weights(result: xr.Dataset) -> str:
    """Of which weights a result is, as its record below says it, and what is to be known of them."""
    model = record_of(result).get("model", {})
    known = [str(model["badge"])] if model.get("badge") else []
    known += [f"weights {str(model['weights_hash'])[:12]}"] if model.get("weights_hash") else []
    return "".join(f"; {one}" for one in known)


def _pinned(engine: Engine, link: Link, shown: Asked) -> dict[str, Any]:
    """The pinned prompts of a step and what they share, of those whose result is kept."""
    if not link.pins or link.view is None:
        return {}
    row = pinned(engine, shown, link.pins, link.view, False, link.display, None, link.aligned)
    html = lambda one: "" if one.figure is None else _html(one.figure, _LOW)
    told = [{"text": one.text, "words": one.words, "drawn": html(one)} for one in row.prompts]
    return {"shared": row.said, "pins": told}


def _shown(seen: Any, result: xr.Dataset, index: int, display: Mapping[str, Any]) -> str:
    if tables.is_table(seen, index):
        frame = tables.frame_of(seen, result, index)
        return str(frame.to_html(index=False))  # pandas escapes the cells
    return _html(views.drawn(seen, result, index, False, display))


def _html(figure: Any, height: int = _HEIGHT) -> str:
    figure.update_layout(height=height)
    return str(figure.to_html(include_plotlyjs=False, full_html=False, config=GRAPH_CONFIG))


def _record(result: xr.Dataset) -> str:
    return json.dumps(record_of(result), indent=1, ensure_ascii=False, default=str)


def _asked(engine: Engine, link: Link) -> Asked:
    """The run that a link is about. InputError for a model that this page does not offer."""
    return _valid(
        engine,
        lambda context: Asked.model_validate(
            {"id": "visit", "model": link.model, "text": link.text, "params": link.params, "chat": link.chat,
             "edits": link.edits},
            context=context,
        ),
    )  # fmt: skip


def _other(engine: Engine, link: Link) -> Asked:
    """The run that it is held against: of another prompt, on another model, or the intact one."""
    given = {
        "id": "visit-other", "model": link.other_model or link.model, "text": link.other or link.text,
        "params": link.params, "chat": link.chat,
    }  # fmt: skip
    return _valid(engine, lambda context: Asked.model_validate(given, context=context))


def _valid(engine: Engine, make: Callable[[Engine], Asked]) -> Asked:
    try:
        return make(engine)
    except ValidationError:
        raise InputError(
            "a step on a model that is not loaded here", "one that this page offers", "Start the page with it"
        ) from None
