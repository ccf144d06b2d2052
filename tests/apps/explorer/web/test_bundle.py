"""Dash's own scripts as one file: all that are needed, in their order, found under whatever address."""

import re

import pytest

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.web.bundle import _script
from apps.explorer.web.server import make_app


@pytest.fixture(params=["/", "/lab/"])
def page(request):
    """A client of the app under a path, and the addresses of its scripts, cut of that path."""
    app = make_app(Engine(Settings(models=("toy-copy",), token="", base_path=request.param), [])).server.test_client()
    return app, re.findall(r'<script src="([^"]+)"', app.get(request.param).text)


def test_every_script_is_there_and_dashs_own_are_one(page):
    app, addresses = page
    kinds = [re.sub(r".*/_dash-component-suites/|\?.*|\.v\d.*", "", address) for address in addresses]
    assert kinds[1:] == [
        "dash/dcc/dash-renderer-and-components.js",
        "dash_mantine_components/dash_mantine_components",
        "dash_ag_grid/dash_ag_grid",
    ]
    for address in addresses:
        answer = app.get(address)
        assert answer.status_code == 200 and answer.mimetype.endswith("javascript") and len(answer.data) > 1000
        assert "immutable" in answer.headers["Cache-Control"]


def test_the_bundle_holds_react_before_the_renderer_before_the_components(page):
    app, addresses = page
    text = app.get(addresses[1]).text
    names = (
        "* react.production",
        "react-dom.production",
        "DashRenderer=",
        "dash_core_components=",
        "dash_html_components=",
    )
    places = [text.index(name) for name in names]
    assert places == sorted(places)
    assert "\n//# sourceMappingURL" not in text


def test_what_is_strict_stays_so_and_alone(page):
    """`"use strict"` holds for a whole file where it stands first, and for nothing where it stands later."""
    app, addresses = page
    text, shared = app.get(addresses[1]).text, _script("dash/dcc/dash_core_components-shared.js")
    assert re.match(r';\(function\(\)\{(/\*.*?\*/\s*)*"use strict"', shared, re.DOTALL) and shared in text
    assert not text.lstrip(";").startswith('"use strict"')


def test_a_page_of_an_earlier_server_gets_all_of_it_too(page):
    """Nobody has asked this server for its page yet; what it answers is kept by a browser for a year."""
    _, addresses = page
    path = re.sub("^/lab", "", addresses[1])
    fresh = make_app(Engine(Settings(models=("toy-copy",), token=""), [])).server.test_client()
    assert fresh.get(path).data == page[0].get(addresses[1]).data
