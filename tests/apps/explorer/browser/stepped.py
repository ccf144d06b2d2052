"""A study whose steps the test lets go on one by one, on a server of its own, and windows on its view."""

import threading
import time

import numpy as np

from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import start
from tests.tiny_analyses import tiny_study
from workbench.analysis.results import dataset

STEPS = 3
LIMIT = 120_000  # milliseconds, for loaded machines: what is waited for comes much sooner


class Steps:
    """A study of some steps, each of which waits until the test lets it go on; it knows how far it came."""

    def __init__(self):
        self.parts, self.is_over, self.is_deaf = 0, False, False
        self._steps = threading.Semaphore(0)

    def let(self, steps: int = 1) -> None:
        """Let it do some more steps."""
        for _ in range(steps):
            self._steps.release()

    def anew(self) -> None:
        """Nothing is done, and no step may be."""
        self.parts, self.is_over, self._steps = 0, False, threading.Semaphore(0)

    def study(self, model, tokens, *, progress=None):
        self.parts, self.is_over = 0, False
        for step in range(STEPS):
            while not self._steps.acquire(timeout=0.02):
                if not self.is_deaf:
                    progress(step / STEPS)  # raises where it was cancelled
            self.parts = step + 1
            yield dataset(loss=("step", np.arange(step + 1.0), "nats", (0, None), "loss")).assign_attrs(
                summary=f"{step + 1} steps are done."
            )
        self.is_over = True

    @staticmethod
    def figure(result):
        from workbench.figures import series

        return series(result, "loss", "step", title="Loss")


class Windows:
    """A server with the study of `steps`, and what opens windows on it: each in a context of its own."""

    def __init__(self, browser, steps: Steps, directory):
        view = tiny_study("steps", steps.study, figures=(steps.figure,))
        self.server = start(Settings(models=("toy-induction",), port=0, directory=directory), [view])
        threading.Thread(target=self.server.run, daemon=True).start()
        self._browser, self._contexts = browser, []

    def __call__(self):
        """A window whose prompt is drawn."""
        context = self._browser.new_context()
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LIMIT)
        page.goto(f'{self.server.address}#model=toy-induction&prompt=3+7+9+3&view={{"name":"steps","figure":0}}')
        page.wait_for_selector("#tokens [data-pos]")
        return page

    def until(self, holds) -> None:
        """Wait for something that only the server knows; `holds` says whether it is so."""
        for _ in range(LIMIT // 20):
            if holds():
                return
            time.sleep(0.02)
        raise AssertionError("the server did not come to what was waited for")

    def close(self) -> None:
        """Close all windows, and end the server."""
        for context in self._contexts:
            context.close()
        self.server.close()


def wait_for_said(page, words: str) -> None:
    """Wait for words under the figure; a page that is being loaded has none."""
    page.wait_for_function("w => document.querySelector('#said')?.textContent.includes(w)", arg=words)
