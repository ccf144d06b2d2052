"""A light page: what it is made of is sent compressed, and kept by the browser where its address names its version."""

from flask import Flask, Response, request
from flask_compress import Compress

__all__ = ["lighten"]

_YEAR = 365 * 86400


def lighten(server: Flask) -> None:
    """Install compression and cache headers on a Flask server.

    Compressed are scripts, styles and answers. None of them holds a secret beside text that somebody else chooses
    (BREACH): the token travels in a header only.
    """
    server.config["COMPRESS_MIMETYPES"] = ["text/javascript", "application/javascript", "text/css", "application/json"]
    for kind in ("COMPRESS_ALGORITHM", "COMPRESS_ALGORITHM_STREAMING"):
        server.config[kind] = ["zstd", "br", "gzip"]  # zstd first: the quickest to make

    @server.after_request
    def keep(response: Response) -> Response:
        has_version = "max-age" in response.headers.get("Cache-Control", "") or "m" in request.args
        if response.status_code == 200 and has_version and response.mimetype != "text/html":
            response.headers["Cache-Control"] = f"private, max-age={_YEAR}, immutable"
        return response

    Compress(server)
