"""Photograph every view of the page on the default model, and the README's three pictures.

    python docs/gallery.py [FOLDER] [--pictures] [--studies] [--view NAME ...] [--dark] [--width PIXELS]

Needs a Chromium (CHROMIUM=path) and playwright. What is wrong with a view (an error on the console, a failed request,
an empty panel, no sentence) is printed beside its name, and the exit code is 1; somebody looks at the pictures anyway.
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PROMPT = "When Mary and John went to the store, John gave a drink to"
LIMIT = 1_800_000  # milliseconds: for a study on a loaded machine
AT_REST = (
    "() => !document.querySelector('#main-figure.stale') && !document.querySelector('.job')"
    " && document.querySelectorAll('#tokens [data-pos]').length > 0"
)
# What a person would see at once: a page that scrolls, no words under a figure, a panel with nothing in it.
FAULTS = """() => {
  const found = [];
  const page = document.documentElement;
  const isPhone = innerWidth < 760; // there it scrolls downwards
  if (page.scrollWidth > innerWidth || (!isPhone && page.scrollHeight > innerHeight)) found.push('the page scrolls');
  const message = document.querySelector('#main-message').textContent.trim();
  const table = document.querySelector('#table-holder').textContent.trim();
  const figure = document.querySelector('#main-figure .js-plotly-plot .main-svg');
  if (!message && !table && !figure) found.push('nothing is drawn, and nothing says why');
  if (!message && !document.querySelector('#said').textContent.trim()) found.push('no sentence');
  if (!document.querySelector('#details').textContent.trim()) found.push('nothing beside it');
  return found;
}"""


def main() -> int:
    """Photograph what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "gallery")
    parser.add_argument("--pictures", action="store_true", help="only the README's, into docs/pages")
    parser.add_argument("--studies", action="store_true", help="start what is started by hand, too: takes long")
    parser.add_argument("--view", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--prompt", default=PROMPT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as results, Visit(Path(results), given.width, given.dark) as visit:
        if given.pictures:
            return visit.pictures(ROOT / "docs" / "pages")
        given.folder.mkdir(parents=True, exist_ok=True)
        return visit.views(given.folder, given.prompt, given.view, given.studies)


class Visit:
    """A page in a browser, on a server of its own."""

    def __init__(self, results: Path, width: int, dark: bool):
        self._results, self._width, self._dark = results, width, dark
        self.faults: list[str] = []

    def __enter__(self) -> "Visit":
        from playwright.sync_api import sync_playwright

        from apps.explorer.engine.settings import Settings
        from apps.explorer.web.server import start
        from probes import CATALOG
        from workbench.loading.bundled import NAME

        self.server = start(Settings(models=(NAME,), port=0, token="", directory=self._results), CATALOG)
        threading.Thread(target=self.server.run, daemon=True).start()
        self._driver = sync_playwright().start()
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        self._browser = self._driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        self.page = self._browser.new_page(viewport={"width": self._width, "height": 720 if self._width > 600 else 900})
        self.page.set_default_timeout(LIMIT)
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("response", lambda r: self.faults.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        return self

    def __exit__(self, *error: object) -> None:
        self._browser.close()
        self._driver.stop()
        self.server.close()

    def open(self, prompt: str, view: str) -> None:
        """A view of a prompt, at rest."""
        from urllib.parse import urlencode

        link = urlencode({"prompt": prompt, "view": f'{{"name":"{view}","figure":0}}'})
        self.page.goto("about:blank")
        self.page.goto(f"{self.server.address}#{link}")
        self.page.wait_for_function(AT_REST)
        if self._dark:
            self.page.click("#scheme-toggle")
        self.rest()

    def rest(self) -> None:
        """Until nothing moves any more."""
        self.page.wait_for_timeout(700)
        self.page.wait_for_function(AT_REST)
        self.page.mouse.move(5, 5)
        self.page.wait_for_timeout(700)

    def turn(self, name: str) -> None:
        """Another view."""
        self.page.evaluate("name => dash_clientside.set_props('view', { data: { name: name, figure: 0 } })", name)
        self.rest()

    def views(self, folder: Path, prompt: str, only: list[str], studies: bool) -> int:
        """A picture of each view; how many have something wrong with them, as an exit code."""
        names = [name for name in self.server.engine.views if not only or name in only]
        self.open(prompt, names[0])
        wrong = 0
        for name in names:
            started = time.perf_counter()
            self.turn(name)
            start = self.page.locator("[data-start]")
            if studies and start.count():
                start.first.click()
                self.rest()
            self.page.screenshot(path=folder / f"{name}.png")
            found = [*self.page.evaluate(FAULTS), *self.faults]
            self.faults.clear()
            wrong += bool(found)
            print(f"{name:28} {time.perf_counter() - started:6.1f} s  {'; '.join(found)}", flush=True)
        return min(1, wrong)

    def pictures(self, folder: Path) -> int:
        """A head, its check on repeated tokens, and the route of a prediction."""
        from apps.explorer.page.examples import INDUCTION

        self.open(INDUCTION, "induction-heads")
        select = "chosen => dash_clientside.spine.select(chosen)"
        self.page.evaluate(select, {"layer": 18, "head": 6})
        self.rest()
        self.page.screenshot(path=folder / "head.png")
        self.page.get_by_role("button", name="Check L18H6 on random tokens that repeat", exact=True).click()
        self.page.wait_for_function("() => document.querySelector('#said').textContent.includes('on 16 prompts')")
        self.rest()
        self.page.screenshot(path=folder / "check.png")
        self.turn("flow-routes")
        self.page.screenshot(path=folder / "route.png")
        print("\n".join(self.faults) or "Three pictures.")
        return min(1, len(self.faults))


if __name__ == "__main__":
    sys.exit(main())
