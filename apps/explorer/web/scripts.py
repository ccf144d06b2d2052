"""The scripts of the page, as one file whose address names its content: one request instead of one a file."""

import hashlib
from pathlib import Path

from dash import Dash
from flask import Response

__all__ = ["SCRIPTS", "serve_scripts"]

SCRIPTS = r".*\.js$"  # what Dash shall not list by itself


def serve_scripts(app: Dash, folder: Path, base: str) -> None:
    """Put the scripts of a folder, in the order of their names, before Dash's own. base: where the page is served."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.js")))
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    app.server.add_url_rule(f"{base}page.js", "page-scripts", lambda: Response(text, mimetype="text/javascript"))
    tag = f'<script src="{base}page.js?m={version}"></script>'
    app.index_string = app.index_string.replace("{%scripts%}", f"{tag}\n            {{%scripts%}}")
