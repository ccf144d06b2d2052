"""Connections: whoever has not shown a token yet gets little time and few places, so that nobody else is kept out.

A connection costs nothing but its place; a thread is busy only with whole requests. So what could keep a user out is
many that never say what they want, or say it a byte at a time.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from werkzeug.http import parse_cookie

from apps.explorer.engine.settings import Settings
from apps.explorer.web.safety import cookie_name, is_token

__all__ = ["OPTIONS", "guard"]

_PLACES = 64  # connections at once of those who have shown no token
_SECONDS = 10.0  # that such a connection lasts, whatever it says meanwhile
_BODY_SLACK = 64 << 10  # what is just too large is refused in our own words

OPTIONS: dict[str, Any] = {
    "connection_limit": 1_000,
    "backlog": 512,
    "asyncore_use_poll": True,  # select() knows no more than 1,024 files
    "cleanup_interval": 2,
    "max_request_header_size": 64 << 10,
}


def guard(server: Any, settings: Settings) -> None:
    """Give the listening sockets of a waitress server our channels. server: of `waitress.create_server`."""
    sockets = getattr(server, "map", None) or server._map
    for one in list(sockets.values()):
        if isinstance(one, BaseWSGIServer):
            one.channel_class = _channels(settings)
            one.maintenance = _maintenance(one)
            one.adj.max_request_body_size = settings.largest_request + _BODY_SLACK


def _channels(settings: Settings) -> type[HTTPChannel]:
    class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
        """A connection, and whether any of its requests came with the token."""

        known = False

        def __init__(self, server: Any, *more: Any, **options: Any) -> None:
            super().__init__(server, *more, **options)
            _make_place(server)

        def received(self, data: bytes) -> Any:
            done = super().received(data)
            begun = self.request  # one whose body is still on its way
            self.known = self.known or (begun is not None and begun.headers_finished and _is_known(begun, settings))
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
    """Where there are too many strangers the one that came first goes: it had its time."""
    strangers = [one for one in server.active_channels.values() if not one.known and not one.will_close]
    for one in sorted(strangers, key=lambda channel: channel.creation_time)[: max(0, len(strangers) - _PLACES)]:
        one.will_close = True


def _maintenance(server: Any) -> Callable[[float], None]:
    ordinary = server.maintenance

    def look(now: float) -> None:
        ordinary(now)
        for channel in list(server.active_channels.values()):
            if not channel.known and not channel.requests and now - channel.creation_time > _SECONDS:
                channel.will_close = True

    return look
