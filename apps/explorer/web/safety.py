"""Who may talk to the explorer: a token, known hosts, known origins; and what a page may load.

The server runs code on the user's machine for whoever can reach it, and any web page that is open in the same browser
can try. So: a token as Jupyter has it, in the printed address once and in a cookie after that; requests that name a
foreign Host (DNS rebinding) or come from a foreign Origin are refused; nothing is loaded from elsewhere.
"""

import hmac
import secrets
from typing import cast
from urllib.parse import urlsplit

from flask import Flask, Response, redirect, request

from apps.explorer.engine.settings import Settings

__all__ = ["allowed_host", "allowed_origin", "cookie_name", "is_token", "policy", "protect"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_COOKIE_DAYS = 30


# A form without an action is sent to the address of its page, of which the browser keeps the part behind #: the link.
_ASKS = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Workbench: token</title></head>
<body style="font: 15px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 15vh auto; padding: 0 1rem">
<main><h1 style="font-size: 1.3rem">This explorer asks for its token</h1>
<p>{sentence}</p>
<p>Or paste the token, the part behind <code>?token=</code>, here; the link that you opened is kept.</p>
<form method="get"><label>Token <input name="token" autocomplete="off" autofocus required></label>
<button>Open</button></form></main></body></html>"""


def protect(server: Flask, settings: Settings, script_hashes: tuple[str, ...] = ()) -> None:
    """Install the checks and the headers on a Flask server."""
    cookie = cookie_name(settings)
    server.config["MAX_CONTENT_LENGTH"] = settings.largest_request

    @server.before_request
    def check() -> Response | None:
        if not allowed_host(request.host, settings):
            return Response(
                f"Got the host {request.host!r}; expected the address that was printed at start, "
                "or a name given with --host-name.",
                403,
                mimetype="text/plain",
            )
        if not allowed_origin(request.headers.get("Origin"), request.host, settings):
            return Response("Got a request from another site; expected one from this page.", 403, mimetype="text/plain")
        return _check_token(settings, cookie)

    @server.after_request
    def headers(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        if settings.mounted == "/":
            response.headers["X-Frame-Options"] = "DENY"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if response.mimetype == "text/html":
            response.headers.setdefault("Content-Security-Policy", policy(script_hashes, settings))
            response.headers["Cache-Control"] = "no-store"
        return response


def _check_token(settings: Settings, cookie: str) -> Response | None:
    if not settings.token:
        return None
    shown = request.args.get("token")
    if shown is not None and _same(shown, settings.token):
        response = cast(Response, redirect(settings.base_path))  # the address bar must not keep it
        age = _COOKIE_DAYS * 86400
        response.set_cookie(
            cookie, settings.token, max_age=age, httponly=True, samesite="Strict", path=settings.base_path
        )
        return response
    if _same(request.cookies.get(cookie, ""), settings.token):
        return None
    got = "the token of an explorer that is no more" if request.cookies.get(cookie) else "no token"
    sentence = f"Got {got}; expected the one in the address that was printed at start. Open that address."
    if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        return Response(_ASKS.format(sentence=sentence), 403, mimetype="text/html")
    return Response(sentence, 403, mimetype="text/plain")


def cookie_name(settings: Settings) -> str:
    """The cookie in which a browser keeps the token; of each port its own."""
    return f"workbench-{settings.port}"


def is_token(shown: str, settings: Settings) -> bool:
    """Whether it is the token of this explorer."""
    return _same(shown, settings.token)


def _same(given: str, token: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def allowed_host(host: str, settings: Settings) -> bool:
    """Whether a Host header names this server: loopback, the address it was bound to, or a host it was told.

    Any does where the path is a secret: who knows it was told.
    """
    if settings.mounted != "/":
        return True
    name = _host_of(f"//{host}")
    return name in {*_LOOPBACK, settings.host.lower(), *(h.lower() for h in settings.hosts)}


def allowed_origin(origin: str | None, host: str, settings: Settings) -> bool:
    """Whether a request was made by this page (or by no page at all: no Origin is sent).

    A proxy may have written another Host than the page has: then by a page of a host that the server was told.
    """
    if origin is None or settings.mounted != "/":
        return True
    scheme, _, netloc = origin.partition("://")
    told = _host_of(f"//{netloc}") in {name.lower() for name in settings.hosts}
    return scheme in ("http", "https") and (netloc.lower() == host.lower() or told)


def _host_of(address: str) -> str:
    """The name of the host in an address; "" where it is none."""
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:  # half of an IPv6 address
        return ""


def policy(script_hashes: tuple[str, ...], settings: Settings) -> str:
    """The content security policy. Dash's own inline scripts are allowed by hash; Plotly and Mantine write styles.

    In a frame stands only a page whose path is a secret: nobody else can put it there.
    """
    frames = ["frame-ancestors 'none'"] if settings.mounted == "/" else []
    scripts = " ".join(["'self'", *(f"'{h}'" if not h.startswith("'") else h for h in script_hashes)])
    return "; ".join(
        [
            "default-src 'self'",
            f"script-src {scripts}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            *frames,
        ]
    )


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(32)
