"""The page on a model that a notebook holds: no second copy, what is asked for, and what is selected."""

import http.client
import time
from urllib.parse import parse_qs, urlsplit

import pytest
import xarray as xr

from apps.explorer import show
from apps.explorer.callbacks.export import take
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page.components import model_line
from apps.explorer.page.news import request_of
from apps.explorer.page.state import Seen, Shown, Sizes
from apps.explorer.web import window as windows
from apps.explorer.web.server import make_app
from probes.attention.sinks.attention_sinks import VIEW as SINKS
from probes.lens.logit_lens import VIEW as LENS
from tests.apps.explorer.tiny_browser import TinyBrowser
from tests.tiny_models import spelling, tiny_hf, tiny_model
from workbench.errors import InputError
from workbench.intervene import Ablate, Head, Scale
from workbench.loading.pretrained import wrap
from workbench.models.prompt import Prompt, tokenise

IDS = [5, 9, 17, 40]


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


@pytest.fixture
def shown(model):
    """A window on the model, with one view of the user's own beside no others."""
    made = show(model, Prompt.ids(IDS), interventions=["L0H1"], probes=[SINKS], catalog=NOTHING)
    assert made._running.engine.hosted(model.name).loading.finished.wait(60)
    yield made
    made.close()


class Nothing:
    views = ()


NOTHING = Nothing()


def answered(address: str, path: str, **headers: str) -> http.client.HTTPResponse:
    place = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer


def test_the_page_computes_on_the_model_that_is_held(shown, model):
    engine = shown._running.engine
    assert engine.hosted(model.name).ready.adapter is model.adapter  # not even another instrument around it
    assert engine.settings.models == (model.name,) and engine.cache.directory is None
    assert SINKS.name in engine.standing and "flow-routes" not in engine.standing
    link = parse_qs(urlsplit(shown.address).fragment)
    assert link == {"model": [model.name], "prompt": ["5 9 17 40"], "edits": ['["L0H1"]']}
    request = engine.request(model.name, link["prompt"][0], {}, edits=["L0H1"])
    job = engine.submit(request, "me")
    assert job.finished.wait(60) and job.state == "done", job.error
    direct = SINKS.analysis().run(model, Prompt.ids(IDS), interventions=[Ablate(Head(0, 1))])
    xr.testing.assert_equal(engine.found(request, SINKS.name), direct)


def test_only_who_has_the_address_is_let_in_and_a_frame_may_show_it(shown):
    path = urlsplit(shown.address).path
    assert len(path) > 40 and answered(shown.address, path).status == 200
    for other in ("/", "/_dash-layout", path[:-2] + "/", "/_dash-update-component", f"{path[:-9]}/"):
        assert answered(shown.address, other).status == 404, other
    there = answered(shown.address, path, Host="hub.example")
    assert there.status == 200 and there.headers["X-Frame-Options"] is None
    assert "frame-ancestors" not in there.headers["Content-Security-Policy"]
    assert f'<iframe src="{shown.address.replace("&", "&amp;")}"' in shown._repr_html_()


def test_a_closed_page_says_so_in_its_cell(shown):
    """A frame at its address would show that nothing answers there."""
    shown.close()
    assert "closed; show(model)" in repr(shown) and "<iframe" not in shown._repr_html_()
    with pytest.raises(InputError, match=r"closed.* Call show\(model\) again"):
        shown.open()


def test_what_is_selected_on_the_page_is_read_back(shown, model):
    assert shown.selection == {} and shown.prompt == ""
    engine = shown._running.engine
    page = TinyBrowser(make_app(engine).server.test_client(), urlsplit(shown.address).path)
    page.put("poll", 1, "n_intervals")
    page.fire("poll", "n_intervals")
    page.put("go", {"text": "5 9 17 40", "clicks": 1})
    page.fire("go")
    for n in range(2, 600):
        page.put("poll", n, "n_intervals")
        page.fire("poll", "n_intervals")
        if page.get("shown"):
            break
        time.sleep(0.1)
    page.put("selection", {"layer": 1, "head": 3, "pos": 2})
    page.fire("selection")
    assert shown.selection == {"layer": 1, "head": 3, "pos": 2} and shown.prompt == "5 9 17 40"
    shown.selection["layer"] = 0
    assert shown.selection["layer"] == 1  # a copy


def test_edits_that_are_values_reach_every_pass_and_the_held_model_stays_plain(model):
    made = show(model, interventions=[Ablate(Head(1, 2))], catalog=NOTHING, probes=[SINKS])
    try:
        engine = made._running.engine
        assert engine.hosted(model.name).loading.finished.wait(60) and "#" not in made.address
        request = engine.request(model.name, "5 9 17 40", {})
        job = engine.submit(request, "me")
        assert job.finished.wait(60) and job.state == "done", job.error
        direct = SINKS.analysis().run(model, Prompt.ids(IDS), interventions=[Ablate(Head(1, 2))])
        xr.testing.assert_equal(engine.found(request, SINKS.name), direct)
        assert model.interventions == ()
        line = str(model_line(engine.hosted(model.name).ready))  # nothing else on the page would tell
        assert "with Ablate(L1H2 by zero)" in line and "with " not in str(model_line(model))
    finally:
        made.close()


def test_code_of_a_held_model_runs_on_it_alone_and_as_the_page_has_it():
    """No name loads its weights, and no phrase says its values: code that left them out made other numbers."""
    model = tiny_model("gpt2")
    edits = [Scale(Head(1, 2), 3.0)]
    made = show(model, interventions=edits, catalog=NOTHING, probes=[LENS])
    try:
        engine = made._running.engine
        assert engine.hosted(model.name).loading.finished.wait(60)
        run = Shown(id="run", model=model.name, text="5 9 17 40", tokens=("5",), sizes=Sizes(n_layers=2, n_heads=4))
        assert engine.submit(request_of(engine, run), "me").finished.wait(60)
        seen = Seen(name=LENS.name, figure=0)
        code, spec = (take(engine, kind, run, seen, {}, False, "me")[0].decode() for kind in ("py", "toml"))
        kept = engine.found(request_of(engine, run), LENS.name)
    finally:
        made.close()
    code = code.replace("figure.show()", "")
    scope = {"model": model.edited(edits)}
    exec(code, scope)
    xr.testing.assert_equal(scope["result"], kept)
    with pytest.raises(AssertionError, match="not the interventions of the page"):
        exec(code, {"model": model})
    with pytest.raises(AssertionError, match="not the weights of the page"):
        exec(code, {"model": tiny_model("gpt2", seed=1).edited(edits)})
    assert f"# Every pass of the page carries out {edits[0]} besides.\n" in spec and "a model that is held" in spec


def test_a_prompt_begins_the_page_as_it_was_written():
    reads = wrap(tiny_hf("llama"), spelling(), name="tiny reader")
    assert windows._written(reads, tokenise(reads, "a b")) == ("a b", False)
    assert windows._written(reads, tokenise(reads, Prompt.ids([1, 2]))) == ("#1 #2", False)
    reads.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    said = {"role": "user", "content": "b a"}
    assert windows._written(reads, tokenise(reads, Prompt.chat([said]))) == ("b a", True)
    several = tokenise(reads, Prompt.chat([said, {"role": "assistant", "content": "a"}]))
    assert windows._written(reads, several) == (" ".join(f"#{token}" for token in several.ids), False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "smollm2-135m"}, "wrap"), ({"probes": [SINKS.analysis]}, "View"),
        ({"interventions": ["L0H1"]}, "prompt"),
        ({"prompt": Prompt.ids([1, 2]), "interventions": ["L9H1"]}, "L9H1"), ({"base_path": "user/ada"}, "slash"),
        ({"prompt": Prompt.ids([10**6])}, "ids from 0 to 95"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_said_before_anything_is_served(model, given, words):
    with pytest.raises(InputError, match=words):
        show(**{"model": model, "catalog": NOTHING, **given})


def test_under_a_hub_the_address_is_a_path_of_the_notebooks_own_host(model, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada%40uni/")
    made = show(model, catalog=NOTHING)
    try:
        port = made._running.engine.settings.port
        assert made.address.startswith(f"/user/ada%40uni/proxy/{port}/") and made.address.endswith("/")
        local = f"http://127.0.0.1:{port}"
        assert answered(local, made.address).status == 200  # by a proxy that leaves the prefix
        assert answered(local, made.address.removeprefix(f"/user/ada%40uni/proxy/{port}")).status == 200  # or cuts it
        assert answered(local, f"/user/ada%40uni/proxy/{port}/").status == 404
    finally:
        made.close()


@pytest.mark.parametrize("base", ["/lab/", "/user/a%40b/proxy/8050/"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_the_page_is_found_behind_a_proxy_of_either_kind(base, is_cut):
    engine = Engine(Settings(models=("toy-copy",), token="t", base_path=base, hosts=("hub.example",)), [])
    page = make_app(engine).server.test_client()
    path = "/" if is_cut else base
    shown = page.get(f"{path}?token=t")
    assert shown.status_code == 302 and shown.headers["Location"] == base
    assert f"Path={base}" in shown.headers["Set-Cookie"]
    page.set_cookie("workbench-8050", "t", path="/")
    text = page.get(path).text
    assert f'src="{base}page.js' in text and f"{base}_dash-component-suites" in text
    assert page.get(f"{path}page.js").mimetype == "text/javascript" and page.get(f"{path}alive").status_code == 204
    told = {"Host": "localhost:8050", "Origin": "https://hub.example"}  # the proxy has written its own Host
    assert page.get(path, headers=told).status_code == 200
    assert page.get(path, headers={**told, "Origin": "https://evil.example"}).status_code == 403
    page.set_cookie("workbench-8050", "t", domain="hub.example", path="/")
    assert page.get(path, headers={"Host": "hub.example"}, base_url="http://hub.example").status_code == 200
    assert "--host-name" in page.get(path, headers={"Host": "other.example"}).text
