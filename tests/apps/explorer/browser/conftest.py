"""One explorer for all browser tests, with the default model, and pages that remember what went wrong on them."""

import json
import os
import threading
from pathlib import Path

import pytest

from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import start

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_STANDING = (Path(__file__).parent / "standing.js").read_text(encoding="utf-8")
TOKEN = "token-of-the-browser-tests"
HEADLESS = "toy-without-its-head"  # a second model with the toy's tokens
WORDS = "tiny-words"  # random weights, and the default model's tokens


@pytest.fixture(scope="session")
def explorer(default_model, tmp_path_factory):
    """A running explorer on a free port."""
    from probes import CATALOG

    settings = Settings(
        models=(default_model.name, "toy-induction", HEADLESS, WORDS),
        port=0,
        token=TOKEN,
        directory=tmp_path_factory.mktemp("results"),
        runs=tmp_path_factory.mktemp("runs"),
    )
    running = start(settings, CATALOG, load=_loader(default_model))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    yield running
    running.close()


def _loader(default_model):
    from tests.tiny_models import tiny_words
    from workbench import load

    made = {
        default_model.name: lambda: default_model,
        HEADLESS: _headless,
        WORDS: lambda: tiny_words(default_model.tokenizer, WORDS),
    }
    return lambda name, progress: made.get(name, lambda: load(name))()


def _headless():
    """The toy whose induction head, L1H0, writes nothing."""
    import torch

    from workbench.loading.pretrained import wrap
    from workbench.loading.toys.circuits import induction_circuit

    toy = induction_circuit()
    with torch.no_grad():
        toy.blocks[1].W_O.zero_()
    return wrap(toy, None, name=HEADLESS)


@pytest.fixture(scope="session")
def browser(chromium_path):
    """Debian's Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium_path, args=list(_FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where screenshots go: WORKBENCH_SCREENSHOTS, or a directory of this run."""
    chosen = os.environ.get("WORKBENCH_SCREENSHOTS")
    path = Path(chosen) if chosen else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What fails on a page is told with how the page stood: most of it was waited for, and a stack says not why."""
    report = yield
    browser = item.funcargs.get("browser")
    if browser is not None and report.when == "call" and report.failed:
        for page in (page for context in browser.contexts for page in context.pages):
            try:
                said = json.dumps(page.evaluate(_STANDING), indent=1, ensure_ascii=False)
            except Exception as error:  # the page itself may be what broke
                said = f"not known: {error}"
            report.sections.append(("how a page stood", said))
    return report


@pytest.fixture
def open_page(browser, explorer):
    """`open_page(fragment="", width=1280, height=800)`: a page in a fresh context, ready to be used.

    At the end no page may have written an error to its console or had a failed request.
    """
    opened = Opened(browser, explorer)
    yield opened
    opened.close()
    opened.check()


@pytest.fixture(scope="module")
def shared(browser, explorer):
    """As `open_page`, for a module: pages of tests that need no fresh one, who leave each as they found it."""
    opened = Opened(browser, explorer)
    yield opened
    opened.close()
    opened.check()


class Opened:
    """Opens pages and remembers what went wrong on them."""

    def __init__(self, browser, explorer):
        self._browser, self._explorer = browser, explorer
        self._contexts, self._faults = [], []

    def __call__(
        self, fragment: str = "", width: int = 1280, height: int = 800, wait: bool = True, touch: bool = False
    ):
        context = self._browser.new_context(viewport={"width": width, "height": height}, has_touch=touch)
        self._contexts.append(context)
        page, faults = context.new_page(), self._faults
        page.set_default_timeout(120_000)  # a limit for loaded machines, not a measurement: those are printed
        page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
        page.on("requestfailed", lambda r: faults.append(f"failed: {r.url} {r.failure}"))
        page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.goto(self._explorer.address + fragment)  # a fragment outlives the redirect that takes the token away
        if wait:
            page.wait_for_selector("#tokens [data-pos]")
            page.wait_for_selector("#main-figure .js-plotly-plot .nsewdrag")
        return page

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()

    def check(self) -> None:
        """Fail where something went wrong since the last check."""
        real = [
            fault for fault in self._faults if "net::ERR_ABORTED" not in fault
        ]  # a closed page aborts its last poll
        self._faults.clear()
        assert not real, real
