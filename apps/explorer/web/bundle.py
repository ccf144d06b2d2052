"""What Dash brings of its own, as one file: one request instead of eight, and none for what no view is made of."""

import hashlib
import re
from functools import cache
from importlib.resources import files

from dash import Dash
from dash.fingerprint import check_fingerprint
from flask import Response

from apps.explorer.engine.settings import Settings

__all__ = ["serve_bundle"]

_SUITES = "_dash-component-suites/"
_TAG = re.compile(rf'<script src="[^"]*/{_SUITES}(dash/[^"?]+)[^"]*"></script>\n?')
# Beside the core components, who look for their later parts in the folder that they came from.
_PLACE = f"{_SUITES}dash/dcc/dash-renderer-and-components.js"  # Dash looks for its renderer by this name
_UNUSED = "dash/dash_table/"  # tables here are AG Grid's
_ICON = (
    '<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,%3Csvg xmlns=%27http://www.w3.org/2000/svg%27 '
    "viewBox=%270 0 16 16%27%3E%3Cpath d=%27M3 13 8 3l5 10M5 9h6%27 fill=%27none%27 stroke=%27%232a78d6%27 "
    'stroke-width=%272%27/%3E%3C/svg%3E">'
)


def serve_bundle(app: Dash, settings: Settings) -> None:
    """Put one script in the place of all of Dash's own, in their order; its address names its content."""
    plain, place = app.interpolate_index, f"{settings.base_path}{_PLACE}"

    @cache
    def bundle(addresses: tuple[str, ...]) -> str:
        return "\n".join(map(_script, addresses))

    def interpolated(**parts: str) -> str:
        text = bundle(_own(parts["scripts"]))
        one = f'<script src="{place}?m={hashlib.sha256(text.encode()).hexdigest()[:16]}"></script>\n'
        parts["scripts"], parts["favicon"] = one + _TAG.sub("", parts["scripts"]), _ICON
        return plain(**parts)

    def answer() -> Response:
        """Also for a page that an earlier server gave out: an empty script would be kept by its browser for a year."""
        return Response(bundle(_own(app._generate_scripts_html())), mimetype="text/javascript")

    app.interpolate_index = interpolated  # type: ignore[assignment]  # Dash offers it to be replaced
    app.server.add_url_rule(f"{settings.mounted}{_PLACE}", "bundle", answer)


def _own(scripts: str) -> tuple[str, ...]:
    """Of the tags of all scripts, the addresses of Dash's own that are used."""
    return tuple(tag[1] for tag in _TAG.finditer(scripts) if not tag[1].startswith(_UNUSED))


def _script(address: str) -> str:
    """One of Dash's scripts; its strictness is its own."""
    package, _, path = address.partition("/")
    text = files(package).joinpath(check_fingerprint(path)[0]).read_text(encoding="utf-8")
    text = re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.MULTILINE)  # of one file, not of them together
    return f";(function(){{{text}\n}})();" if re.match(r'(/\*.*?\*/\s*)*"use strict"', text, re.DOTALL) else f";{text}"
