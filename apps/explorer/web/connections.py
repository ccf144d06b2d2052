"""Connections: whoever has not shown a token yet gets little time and few places, so that nobody else is kept out.
Who has shown it may keep many, as an open page does, but few at once whose request is still on its way.

A connection costs nothing but its place; a thread is busy only with whole requests. So what could keep a user out is
many that never say what they want, or say it a byte at a time.

A server that was closed leaves nothing behind: neither threads nor a thread that writes where it should not.
"""

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from werkzeug.sansio.http import parse_cookie

from apps.explorer.engine.settings import Settings
from apps.explorer.web.safety import cookie_name, is_token

__all__ = ["OPTIONS", "end", "guard"]

_PLACES = 64  # connections at once of those who have shown no token
_SECONDS = 10.0  # that such a connection lasts, whatever it says meanwhile
_UNFINISHED = 256  # connections at once of those who have shown it and have not said all of a request
_BODY_SLACK = 64 << 10  # what is just too large is refused in our own words

OPTIONS: dict[str, Any] = {
    "connection_limit": 1_000,
    "backlog": 512,
    "asyncore_use_poll": True,  # select() knows no more than 1,024 files
    "cleanup_interval": 2,
    "outbuf_high_watermark": 1 << 40,  # a thread never waits for a slow reader: what is not read yet lies in a file
    "max_request_header_size": 64 << 10,
}


def guard(server: Any, settings: Settings) -> None:
    """Give the listening sockets of a waitress server our channels. server: of `waitress.create_server`."""
    for one in _listening(server):
        one.channel_class = _channels(settings)
        one.maintenance = _maintenance(one)
        one.adj.max_request_body_size = settings.largest_request + _BODY_SLACK
        _hold_back(one.trigger)


def end(server: Any) -> None:
    """Close a guarded server: it listens no more, its connections close, and its threads end with what they are at."""
    listening = _listening(server)
    server.close()
    for one in listening:
        for channel in list(one.active_channels.values()):
            channel.will_close = True
    server.task_dispatcher.set_thread_count(0)


def _listening(server: Any) -> list[Any]:
    sockets = getattr(server, "map", None) or server._map
    return [one for one in list(sockets.values()) if isinstance(one, BaseWSGIServer)]


def _hold_back(trigger: Any) -> None:
    """Let a thread wake the loop only while there is one. waitress writes an "x" to the number of a pipe, also when it
    is closed: by then the number may be that of any file that this process writes."""
    lock, pull, close = threading.Lock(), trigger._physical_pull, trigger._close

    def held_pull() -> None:
        with lock:
            if not trigger._closed:
                pull()

    def held_close() -> None:
        with lock:
            close()

    trigger._physical_pull, trigger._close = held_pull, held_close


def _channels(settings: Settings) -> type[HTTPChannel]:
    class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
        """A connection, and whether any of its requests came with the token."""

        known = False
        begun: float | None = None  # when the request that is on its way began

        def __init__(self, server: Any, *more: Any, **options: Any) -> None:
            super().__init__(server, *more, **options)
            _make_place(server)

        def received(self, data: bytes) -> Any:
            done = super().received(data)
            begun = self.request  # one whose body is still on its way
            self.known = self.known or (begun is not None and begun.headers_finished and _is_known(begun, settings))
            self.begun = None if begun is None else self.begun or time.monotonic()
            if self.known and begun is not None:
                _make_place(self.server)
            return done

        def service(self) -> None:
            self.known = self.known or _is_known(self.requests[0], settings)
            super().service()

    return Channel


def _is_known(request: Any, settings: Settings) -> bool:
    """Whether a request has the token, in its cookie or its address; where there is none, whether it is one at all."""
    if not settings.token:
        return True
    cookies = parse_cookie(request.headers.get("COOKIE", ""))
    shown = [*parse_qs(getattr(request, "query", "") or "").get("token", ()), cookies.get(cookie_name(settings), "")]
    return any(is_token(one, settings) for one in shown)


def _make_place(server: Any) -> None:
    """Where there are too many strangers, or too many unfinished requests, the one that came first goes: it had its
    time."""
    there = [one for one in server.active_channels.values() if not one.will_close]
    strangers = sorted((one for one in there if not one.known), key=lambda one: one.creation_time)
    unfinished = sorted((one for one in there if one.known and one.begun is not None), key=lambda one: one.begun)
    for waiting, places in ((strangers, _PLACES), (unfinished, _UNFINISHED)):
        for one in waiting[: max(0, len(waiting) - places)]:
            one.will_close = True


def _maintenance(server: Any) -> Callable[[float], None]:
    ordinary = server.maintenance

    def look(now: float) -> None:
        ordinary(now)
        for channel in list(server.active_channels.values()):
            if not channel.known and not channel.requests and now - channel.creation_time > _SECONDS:
                channel.will_close = True

    return look
