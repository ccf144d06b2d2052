"""The scripts of the page, as one file whose address names its content: one request instead of one a file."""

import hashlib
from pathlib import Path

from dash import Dash
from flask import Response

from apps.explorer.engine.settings import Settings

__all__ = ["SCRIPTS", "serve_scripts"]

SCRIPTS = r".*\.js$"  # what Dash shall not list by itself


def serve_scripts(app: Dash, folder: Path, settings: Settings) -> None:
    """Put the scripts of a folder, in the order of their names, before Dash's own."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.js")))
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    app.server.add_url_rule(
        f"{settings.mounted}page.js", "page-scripts", lambda: Response(text, mimetype="text/javascript")
    )
    tag = f'<script src="{settings.base_path}page.js?m={version}"></script>'
    app.index_string = app.index_string.replace("{%scripts%}", f"{tag}\n            {{%scripts%}}")
