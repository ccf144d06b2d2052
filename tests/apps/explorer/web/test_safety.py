"""Who is let in, through the app itself."""

import pytest

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.web.safety import allowed_host, allowed_origin
from apps.explorer.web.server import make_app


def client(**options):
    settings = Settings(models=("smollm2-135m",), **{"token": "secret-token", **options})
    return make_app(Engine(settings, [])).server.test_client()


def test_the_token_is_exchanged_for_a_cookie():
    page = client()
    assert page.get("/").status_code == 403
    assert page.get("/?token=wrong").status_code == 403
    assert page.get("/_dash-layout").status_code == 403
    answer = page.get("/?token=secret-token")
    assert answer.status_code == 302 and answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert page.get("/").status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_without_the_token_there_is_nothing_at_all(method):
    """Every route that there is, and ways around them."""
    page = client()
    routes = {str(rule).replace("<path:", "").replace(">", "") for rule in page.application.url_map.iter_rules()}
    assert len(routes) > 8
    around = ["/assets/../../web/safety.py", "/%2e%2e/etc/passwd", "//", "/_dash-component-suites/os/os.py", "/x"]
    for path in (*routes, *around):
        assert page.open(path, method=method).status_code in (403, 404, 308), (method, path)
        answer = page.open(path, method=method, headers={"Cookie": "workbench-8050=guess"})
        assert answer.status_code in (403, 404, 308), (method, path)


@pytest.mark.parametrize(
    "path",
    ["/assets/../../web/safety.py", "/assets/..%2f..%2fweb/safety.py", "/assets/%2e%2e/exports.py",
     "/assets//etc/passwd", "/assets/....//web/safety.py", "/_dash-component-suites/dash/../../../etc/passwd"],
)  # fmt: skip
def test_no_path_leads_out_of_the_assets(path):
    answer = client(token="").get(path)
    assert answer.status_code in (400, 404) or answer.mimetype == "text/html"
    assert b"root:" not in answer.data and b"hmac" not in answer.data


def test_without_a_token_everyone_on_this_machine_is_let_in():
    assert client(token="").get("/").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "[::1", "127.0.0.1.evil.example", "169.254.0.1", ""])
def test_foreign_hosts_are_refused(host):
    assert not allowed_host(host, Settings(models=("m",)))


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:9000", "[::1]:8050"])
def test_the_printed_address_works_also_through_a_tunnel(host):
    assert allowed_host(host, Settings(models=("m",)))


def test_a_rebound_name_gets_no_page():
    page = client(token="")
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert page.post("/_dash-update-component", headers={"Origin": "http://evil.example"}, json={}).status_code == 403
    assert allowed_origin(None, "localhost:1", Settings(models=("m",)))
    assert not allowed_origin("null", "localhost:1", Settings(models=("m",)))
    for origin in ("http://[::1", "http://localhost:1/x", "ftp://localhost:1", "localhost:1", ""):
        assert not allowed_origin(origin, "localhost:1", Settings(models=("m",)))
        assert page.get("/", headers={"Origin": origin}).status_code == 403
    assert allowed_origin("http://LOCALHOST:1", "localhost:1", Settings(models=("m",)))
    assert not allowed_origin("http://localhost:2", "localhost:1", Settings(models=("m",)))


def test_a_window_says_farewell_under_the_same_rules():
    names = {"session": "a", "window": "b"}
    page = client()
    assert page.post("/leave", json=names).status_code == 403
    page.get("/?token=secret-token")
    assert page.post("/leave", headers={"Origin": "http://evil.example"}, json=names).status_code == 403
    assert page.post("/leave", data='{"session": "a", "window": "b"}', content_type="text/plain").status_code == 204
    for junk in ("", "[]", "{}", '{"session": 3, "window": "b"}', "\xff"):
        answer = page.post("/leave", data=junk)
        assert answer.status_code == 400 and answer.text.startswith("Got ")


def test_headers_and_size_limit():
    page = client(token="")
    answer = page.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "'unsafe-eval'" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    big = page.post("/_dash-update-component", data=b"x" * (3 << 20), content_type="application/json")
    assert big.status_code == 413


def test_scripts_and_answers_are_compressed_and_what_has_a_version_is_kept():
    page = client(token="")
    script = page.get("/assets/spine.js?m=1", headers={"Accept-Encoding": "gzip"})
    assert script.headers["Content-Encoding"] == "gzip" and "immutable" in script.headers["Cache-Control"]
    assert "no-cache" in page.get("/assets/spine.js").headers["Cache-Control"]
    assert page.get("/_dash-layout", headers={"Accept-Encoding": "gzip"}).headers["Content-Encoding"] == "gzip"
    html = page.get("/?m=1", headers={"Accept-Encoding": "gzip"})
    assert html.headers["Cache-Control"] == "no-store" and "Content-Encoding" not in html.headers


def test_a_base_path_moves_everything():
    page = client(token="secret-token", base_path="/lab/")
    assert page.get("/lab/?token=secret-token").headers["Location"] == "/lab/"
    assert page.get("/lab/").status_code == 200
    assert b"/lab/_dash-component-suites" in page.get("/lab/").data


def test_a_browser_without_its_token_is_asked_for_it_and_others_are_told():
    """The form has no action: the browser sends it to the address it stands at, and keeps the link behind #."""
    page = client(token="secret-token")
    asked = page.get("/", headers={"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"})
    assert asked.status_code == 403 and asked.mimetype == "text/html" and "no-store" in asked.headers["Cache-Control"]
    assert 'name="token"' in asked.text and "action" not in asked.text and asked.text.count("<h1") == 1
    assert page.get("/?token=secret-token").status_code == 302
    plain = client(token="secret-token").get("/", headers={"Accept": "application/json"})
    assert plain.status_code == 403 and plain.mimetype == "text/plain" and plain.text.startswith("Got no token;")
