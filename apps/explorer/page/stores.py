"""What the browser keeps, and the clock by which it looks. `state` says what each store may hold."""

import secrets
from collections.abc import Mapping
from typing import Any

from dash import dcc

from apps.explorer.page.alignment import ALIGNED
from workbench.analysis.view import View

__all__ = ["POLL", "PRESSED", "first_view", "stores"]

POLL = 250  # milliseconds between two looks at the jobs, while there are any
BATCH_POLL = 1000  # at the runs of batches, while they are shown
# By the `data-` attribute of a button, the store that a press of it is written to, with what the attribute says.
PRESSED = {
    "start": "started", "cancel": "stopped", "check": "checked", "edit": "edited", "restore": "edited",
    "dismiss": "dismissed", "turn": "view", "export": "take", "batch": "batch", "resume": "batch-asked",
    "halt": "batch-asked", "sheet": "sheet",
}  # fmt: skip


def stores(entries: Mapping[str, View]) -> list[Any]:
    """The stores of one browser window.

    One that holds nothing yet is given no `data`, rather than None: Dash would take that for a change, and call all
    that listen.
    """
    return [
        dcc.Store("session", data=secrets.token_hex(8), storage_type="session"),  # the same after a reload
        dcc.Store("window", data=secrets.token_hex(8)),  # another one after a reload
        dcc.Store("loaded"),  # the model that is ready, with its badge and sizes
        dcc.Store("go"),  # Run was pressed: the text as it stood then
        dcc.Store("went"),  # the press of Run that was answered last
        dcc.Store("asked"),  # the latest request
        dcc.Store("shown"),  # the latest request whose results are there
        dcc.Store("done", data={}),  # which results are there
        dcc.Store("selection", data={}),
        dcc.Store("params", data={}),
        dcc.Store("display", data={}),  # what changes only the drawing, by analysis
        dcc.Store("view", data={"name": first_view(entries), "figure": 0}),
        dcc.Store("notices", data=[]),
        dcc.Store("started"),  # buttons were pressed: what they name, see PRESSED
        dcc.Store("began"),  # the press of a start that was answered last
        dcc.Store("stopped"),
        dcc.Store("checked"),
        dcc.Store("edited"),
        dcc.Store("dismissed"),
        dcc.Store("sheet"),  # the sheet of the model is to be opened
        dcc.Store("settled"),  # the text that the selection is about
        dcc.Store("edits", data=[]),  # interventions, as phrases
        dcc.Store("asked-b"),  # the same two for the prompt that is compared with
        dcc.Store("shown-b"),
        dcc.Store("continuing"),  # the job that writes more tokens
        dcc.Store("history", data=[], storage_type="local"),  # prompts of this browser, newest first
        dcc.Store("visit", data=[], storage_type="session"),  # what was drawn, in its order, see `assets/visit.js`
        dcc.Store("visit-take"),  # the visit was asked for as one page
        dcc.Store("checking"),  # a check that starts as soon as its params are shown
        dcc.Store("woken"),  # something was begun that must be looked at: changes with each
        dcc.Store("idle"),  # the look that found nothing left to do, and what it knew to be begun
        dcc.Store("late", data=0),  # answers to clicks that came after the page stopped waiting
        dcc.Store("take"),  # an export was asked for
        dcc.Store("follow"),  # the selection, for views that are computed from it
        dcc.Store("drawn", data=""),  # what the large view stands for; changes only when it must be drawn anew
        dcc.Store("rested", data=""),  # the same, for what stands around it: follows when a display control rests
        dcc.Store("swapped"),  # a state of the compared prompt was dragged onto one of the shown prompt
        *_of_small_multiples(),
        *_of_forms(),
        *_of_batches(),
        dcc.Store("link"),  # what the address asked for
        dcc.Location("place", refresh=False),
        dcc.Download("download"),
        dcc.Store("scheme", data="light", storage_type="local"),
        dcc.Interval("poll", interval=POLL, disabled=False),
    ]  # fmt: skip


def _of_small_multiples() -> list[Any]:
    return [
        dcc.Store("wanted"),  # those that must be drawn anew: by view, what each is to stand for
        dcc.Store("thumbs"),  # the answer to that
        dcc.Store("pinned", data=[]),  # prompts that are kept beside each other
        dcc.Store("aligned", data=next(iter(ALIGNED))),  # by what they stand below each other
        dcc.Store("pins-asked"),  # pinned prompts that must be drawn
        dcc.Store("pins"),  # the answer to that
    ]


def _of_forms() -> list[Any]:
    return [
        dcc.Store("typed"),  # a parameter's control was changed, and how
        dcc.Store("moved"),  # the same of a display parameter's
    ]


def _of_batches() -> list[Any]:
    return [
        dcc.Store("batch"),  # the run of a batch that is looked at
        dcc.Store("batch-asked"),  # one is to be resumed or cancelled
        dcc.Store("batch-news"),  # changes with what is done of it
        dcc.Interval("batch-poll", interval=BATCH_POLL, disabled=True),  # while the runs of batches are shown
    ]


def first_view(entries: Mapping[str, View]) -> str:
    """The view that a page opens with."""
    return next(name for name in [*(n for n in entries if n != "surprisal"), *entries])
