"""A study whose parts come faster than one is drawn."""

import threading
import time

import numpy as np
import pytest

from apps.explorer.callbacks import details, figure
from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import start
from tests.tiny_analyses import tiny_study
from workbench.analysis.results import dataset

pytestmark = pytest.mark.browser
PARTS, EACH, LATE = 40, 0.15, 0.5  # seconds from one to the next, and those that an answer takes


def study(model, tokens, *, progress=None):
    for part in range(PARTS):
        for _ in range(5):
            time.sleep(EACH / 5)
            progress(part / PARTS)
        losses = np.arange(part + 1.0)
        yield dataset(loss=("step", losses, "nats", (0, None), "loss")).assign_attrs(summary=f"{part + 1} are done.")


def drawn(result):
    from workbench.figures import series

    return series(result, "loss", "step", title="Loss")


def test_they_are_drawn_while_it_runs(browser, tmp_path, monkeypatch):
    """The page said "Press Start" all the while: its figure was asked for anew before the last one had been made."""

    def late(module, name):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, **more: (time.sleep(LATE), plain(*given, **more))[1])

    late(details, "detail_panel")
    late(figure, "large_view")
    view = tiny_study("parts", study, figures=(drawn,))
    server = start(Settings(models=("toy-induction",), port=0, directory=tmp_path), [view])
    threading.Thread(target=server.run, daemon=True).start()
    page = browser.new_context().new_page()
    page.set_default_timeout(120_000)  # a limit for loaded machines
    try:
        page.goto(f'{server.address}#model=toy-induction&prompt=3+7+9+3&view={{"name":"parts","figure":0}}')
        page.locator("#main-message button").click()
        seen = set()
        for _ in range(1000):
            said = page.evaluate("() => document.querySelector('#said').textContent")
            seen.add(said)
            if said == f"{PARTS} are done.":  # the last one is not held back
                break
            page.wait_for_timeout(50)
        assert said == f"{PARTS} are done." and len([one for one in seen if one.startswith("So far: ")]) >= 2, seen
    finally:
        page.close()
        server.close()
