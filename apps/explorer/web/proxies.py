"""Behind a proxy: one that leaves what it was asked for in front of the page's own path, and one that cuts it off."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask

from apps.explorer.engine.settings import Settings

__all__ = ["behind_a_proxy"]


def behind_a_proxy(server: Flask, settings: Settings) -> None:
    """Let a server answer both; a prefix may be written with escapes, as that of a user with an @ in the name."""
    before = settings.base_path.removesuffix(settings.mounted)
    prefix, plain = unquote_to_bytes(before).decode("latin-1"), server.wsgi_app

    def answer(environ: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if prefix and f"{path}/".startswith(f"{prefix}/"):
            environ = {**environ, "PATH_INFO": path[len(prefix) :] or "/"}
        return plain(environ, begin)

    server.wsgi_app = answer  # type: ignore[method-assign, assignment]  # as Flask says
