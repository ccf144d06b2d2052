"""Pieces of the page that are made anew when something changes: chips, jobs, notices, forms, explanations."""

from collections.abc import Callable, Collection, Sequence
from html import unescape
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import xarray as xr
from dash import html

from apps.explorer.engine.jobs import Job, State
from apps.explorer.page.attributes import attributes
from apps.explorer.page.sheet import OPENS
from apps.explorer.page.state import Notice
from workbench.analysis.kinds import kind_of
from workbench.analysis.results import stamp
from workbench.analysis.view import View
from workbench.figures import show_token
from workbench.figures.text import shorten
from workbench.models.model import Model
from workbench.models.selfcheck import SelfCheck
from workbench.storage.record import record_of
from workbench.words import counted

__all__ = ["about", "job_line", "model_line", "notice_list", "token_chips"]

_FULL = 12.0  # nats at which a token's underline has its full colour
_EDITS = 60  # characters of held interventions that are shown


def token_chips(strings: Sequence[str], surprisal: Sequence[float]) -> list[html.Button]:
    """One chip per token; the underline is the stronger the more surprising the token was."""
    return [_token_chip(pos, text, nats) for pos, (text, nats) in enumerate(zip(strings, surprisal, strict=True))]


def _token_chip(pos: int, text: str, nats: float) -> html.Button:
    shown = show_token(text, html=False)
    told = f"token {pos}, surprisal {nats:.2f} nats" if np.isfinite(nats) else f"token {pos}, nothing before it"
    share = min(1.0, nats / _FULL) if np.isfinite(nats) else 0.0
    line = {"borderBottomColor": f"color-mix(in srgb, var(--accent) {100 * share:.0f}%, var(--line))"}
    return html.Button(
        [shown, html.Sub(pos)],
        className="token",
        title=told,
        style=line,
        **attributes({"data-pos": pos, "aria-pressed": "false", "aria-label": f"{shown}, {told}"}),
    )


def model_line(model: Model) -> list[Any]:
    """Name, self-check, badge, held interventions, sizes and weights of the loaded model."""
    s, identity = model.sizes, model.identity
    heads = f"{counted(s.n_layers, 'layer')}, {counted(s.n_heads, 'head')}"
    heads += f" ({s.n_key_value_heads} key/value)" if s.n_key_value_heads != s.n_heads else ""
    name = html.Button(model.name, className="model-name", title="all that is known of the model", **OPENS)
    line = [name, *([_selfcheck(model.selfcheck)] if model.selfcheck else [])]
    if identity.badge:
        line.append(html.Span(identity.badge, className="badge", title=identity.badge))
    if model.interventions:  # of every pass of this page: given as values, they are no chips that could be taken back
        edits = f"with {', '.join(map(str, model.interventions))}"
        line.append(html.Span(shorten(edits, _EDITS), className="badge", title=edits))
    weights = f"{identity.processing} weights, {identity.dtype}"
    return [*line, *(html.Span(words, title=words) for words in (heads, weights))]


def _selfcheck(check: SelfCheck) -> dmc.Popover:
    rows = [
        dmc.TableTr(
            [dmc.TableTd(cell) for cell in (_verdict(i.passed), i.name, f"{i.measured:.2g}", f"{i.tolerance:.2g}")]
        )
        for i in check.items
    ]
    head = dmc.TableThead(
        dmc.TableTr([dmc.TableTh(""), dmc.TableTh("assumption"), dmc.TableTh("measured"), dmc.TableTh("tolerance")])
    )
    colour = "gray" if check.passed else "red"
    button = dmc.Button(
        f"self-check {check.summary}", variant="default", size="compact-xs", color=colour, id="selfcheck"
    )
    table = dmc.Table([head, dmc.TableTbody(rows)], fz="xs", className="numbers")
    said = ", ".join(filter(None, (check.about and f"on {check.about}", check.measured)))
    about = dmc.Text(f"{said[0].upper()}{said[1:]}.", size="xs", c="dimmed") if said else None
    text = html.Div([table, about], tabIndex=0)  # what has the focus is closed with Escape
    return dmc.Popover(
        [dmc.PopoverTarget(button), dmc.PopoverDropdown(text)],
        width=460,
        withArrow=True,
        trapFocus=True,
        withRoles=False,
    )


def _verdict(passed: bool) -> str:
    return "holds" if passed else "fails"


def job_line(
    jobs: Sequence[tuple[str, Job]],
    last: str,
    session: str = "",
    gone: Collection[str] = (),
    before: Callable[[str, Job], int] = lambda model, job: 0,
) -> list[Any]:
    """Work in hand with its progress, or what was done last.

    gone: sessions whose windows were closed. before: how many jobs of a model come before one that waits.
    """
    alive = [(job, before(model, job)) for model, job in jobs if job.alive]
    return [_job(job, session, gone, place) for job, place in alive] or [html.Span(last or "Ready")]


def _job(job: Job, session: str, gone: Collection[str], before: int) -> html.Div:
    parts: list[Any] = [
        html.Span(job.title),
        html.Progress(
            value=str(round(job.share, 3)), max="1", **attributes({"aria-label": f"progress of {job.title}"})
        ),
        html.Span(_far(job, before), className="share"),
    ]
    if job.note:
        parts.append(html.Span(job.note))
    if job.sessions and job.state != State.CANCELLING:
        parts += _cancel(job, session, gone)
    return html.Div(parts, className="job")


def _far(job: Job, before: int) -> str:
    if job.state == State.CANCELLING:
        return "Stopping ..."
    if job.state == State.RUNNING:
        return f"{100 * job.share:.0f} %"
    return f"waiting, {before} before it" if before else "waiting"


def _cancel(job: Job, session: str, gone: Collection[str]) -> list[Any]:
    """What stops a job; where this window has tried to and others wait too, that, and what stops it all the same.

    The browser reads the clicks: the line is drawn anew with every look, and a click must not fall between two.
    """
    stop = lambda words, **more: html.Button(words, className="plain", **{"data-cancel": job.id, **more})
    if session not in job.left:
        return [stop("Cancel")]
    if not job.wanted(gone):
        return [html.Span("The window that also waited for this was closed; it goes on."), stop("Cancel")]
    others = "Another window also waits for this: it goes on for that one."
    return [html.Span(others), stop("Stop for all", **attributes({"data-all": "yes"}))]


def notice_list(notices: Sequence[Notice]) -> list[html.Div]:
    """What went wrong, newest first: the list is low; each stays until it is dismissed."""
    look = lambda n: "notice news" if n.news else "notice"
    return [html.Div([html.Span(n.text), _dismiss(n.id)], className=look(n)) for n in reversed(notices)]


def _dismiss(notice_id: str) -> html.Button:
    return html.Button("Dismiss", className="plain", **attributes({"data-dismiss": notice_id}))


def _computed(result: xr.Dataset | None) -> list[Any]:
    """Key and libraries of a result; a result from the disk may come from other versions than those that run now."""
    record = record_of(result) if result is not None else {}
    was = record.get("stamp")
    if not was:
        return []
    now = stamp(was.get("device", "cpu"), was.get("dtype", "float32"))
    shown = ", ".join(f"{name} {was[name]}" for name in ("torch", "transformer-lens", "dtype", "device", "threads"))
    other = [f"{name} {was[name]} then, {now[name]} now" for name in was if name in now and was[name] != now[name]]
    said = [html.Dt("Computed with"), html.Dd(f"{shown}; key {record.get('spec_key', '')[:12]}")]
    return [*said, html.Dt("Other than now"), html.Dd("; ".join(other))] if other else said


def about(view: View, result: xr.Dataset | None = None) -> list[Any]:
    """Question, definition, limits, source and scope of a view, and what computed the result that is shown."""
    scope = {
        "prompt": "One pass over the prompt, shared with the other views.",
        "model": "On texts it makes itself: the same for every prompt, computed once per model and its interventions.",
        "study": "Several passes with interventions; started by hand.",
    }
    return [
        html.H3(view.title),
        html.P(view.question, className="quiet"),
        html.P(view.analysis.definition),
        html.Dl(
            [
                html.Dt("What it does not show"), html.Dd(view.analysis.limits),
                html.Dt("Computed from"), html.Dd(scope[kind_of(view.analysis)]),
                html.Dt("Source"), html.Dd(view.analysis.source),
                *_computed(result),
            ]
        ),
    ]  # fmt: skip


def fold(graph: Any) -> list[Any]:
    """A figure below its title, which opens and closes it."""
    figure = graph.figure
    title = unescape(str(figure.layout.title.text or graph.id["name"]).replace("<br>", " "))
    figure.update_layout(title_text="", margin_t=22)
    return [html.Summary(title), graph]
