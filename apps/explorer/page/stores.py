"""What the browser keeps, and the clock by which it looks. `state` says what each store may hold."""

import secrets
from collections.abc import Mapping
from typing import Any

from dash import dcc

from workbench.analysis.view import View

__all__ = ["POLL", "stores"]

POLL = 250  # milliseconds between two looks at the jobs, while there are any


def stores(entries: Mapping[str, View]) -> list[Any]:
    """The stores of one browser window."""
    first = next(name for name in [*(n for n in entries if n != "surprisal"), *entries])
    return [
        dcc.Store("session", data=secrets.token_hex(8), storage_type="session"),  # the same after a reload
        dcc.Store("window", data=secrets.token_hex(8)),  # another one after a reload
        dcc.Store("loaded", data=None),  # the model that is ready, with its badge and sizes
        dcc.Store("go", data=None),  # Run was pressed: the text as it stood then
        dcc.Store("asked", data=None),  # the latest request
        dcc.Store("shown", data=None),  # the latest request whose results are there
        dcc.Store("done", data={}),  # which results are there
        dcc.Store("selection", data={}),
        dcc.Store("params", data={}),
        dcc.Store("display", data={}),  # what changes only the drawing, by analysis
        dcc.Store("view", data={"name": first, "figure": 0}),
        dcc.Store("notices", data=[]),
        dcc.Store("started", data=None),  # a button with `data-start` was pressed: what it names
        dcc.Store("stopped", data=None),  # the same of `data-cancel`
        dcc.Store("settled", data=None),  # the text that the selection is about
        dcc.Store("edits", data=[]),  # interventions, as phrases
        dcc.Store("asked-b", data=None),  # the same two for the prompt that is compared with
        dcc.Store("shown-b", data=None),
        dcc.Store("continuing", data=None),  # the job that writes more tokens
        dcc.Store("history", data=[], storage_type="local"),  # prompts of this browser, newest first
        dcc.Store("checking", data=None),  # a check that starts as soon as its params are shown
        dcc.Store("woken", data=None),  # something was begun that must be looked at: changes with each
        dcc.Store("idle", data=None),  # the look that found nothing left to do, and what it knew to be begun
        dcc.Store("late", data=0),  # answers to clicks that came after the page stopped waiting
        dcc.Store("take", data=None),  # an export was asked for
        dcc.Store("follow", data=None),  # the selection, for views that are computed from it
        dcc.Store("drawn", data=""),  # what the large view stands for; changes only when it must be drawn anew
        dcc.Store("rested", data=""),  # the same, for what stands around it: follows when a display control rests
        *(dcc.Store({"type": "drawn", "name": name}, data="") for name in entries),
        dcc.Store("link", data=None),  # what the address asked for
        dcc.Location("place", refresh=False),
        dcc.Download("download"),
        dcc.Store("scheme", data="light", storage_type="local"),
        dcc.Interval("poll", interval=POLL, disabled=False),
    ]  # fmt: skip
