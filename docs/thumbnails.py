"""Draw the example that stands below a study's Start: its first figure, as a small picture that the package holds.

    python docs/thumbnails.py [NAME ...]

Of every study, on the hand-made toy where it applies to that, else on the first of the others below; in small where it
takes long. Needs a Chromium (CHROMIUM=path) and playwright. A name that gets no picture is printed with the reason.
"""

import base64
import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap as lines
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FOLDER = ROOT / "apps" / "explorer" / "page" / "assets" / "thumbnails"
IDS = [3, 7, 9, 5, 11, 3, 7, 9]
TEXT = "When Mary and John went to the store, John gave a drink to"
TOY, WORDS = "toy-induction", "smollm2-135m"
# What a study is drawn of where the toy or its defaults do not do: a model, and parameters that make it small.
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "attention-knockout": (WORDS, {}),
    "causal-check": (WORDS, {"units": "L18H6"}),
    "attribution-patching": (WORDS, {}),
    "circuit-evaluation": (WORDS, {}),
    "sink-conditions": (WORDS, {}),
    "head-survey": (WORDS, {"n_prompts": 16}),
    "change-and-see": (WORDS, {"units": "L18H6"}),
    "explain": (WORDS, {"pairs": 3, "tested": 6}),
    "circuit": (WORDS, {"pairs": 4, "tested": 6, "draws": 5}),
    "edge-rankings": (WORDS, {"pairs": 2, "tested": 2, "rankings": "EAP,RelP"}),
    "flow-route-part": (WORDS, {}),
    "sink-rates": (WORDS, {"samples": 4, "length": 32}),
    "active-dormant": (WORDS, {"texts": 32, "length": 64, "ablate": "none"}),
    "flow-route-heads": (WORDS, {"n_texts": 2, "length": 24}),
    "flow-route-task-heads": (WORDS, {"n_prompts": 4, "draws": 4, "top": 5}),
    "training-timeline": ("toy:induction,d_model=32,n_heads=2,steps=240,every=40", {"seeds": 1}),
    "backcopy-formation": ("toy:bigram-backcopy,d_model=32,n_heads=2,steps=60,every=20", {"seeds": 1, "steps": 60}),
    "induction-formation": ("toy:induction,d_model=32,steps=120,every=40", {"seeds": 1, "steps": 120}),
    "clamped-formation": ("toy:induction,d_model=32,n_heads=2,steps=120,every=40", {"seeds": 1, "steps": 120}),
    "abrupt-learning": ("toy:gaussian-classes,d_model=16,steps=60,every=20", {"seeds": 1, "steps": 60}),
    "in-context-automata": ("toy:automata,d_model=16,steps=60,every=20", {"seeds": 1, "steps": 60}),
}
WIDTH, HEIGHT = 460, 250  # pixels of a screen
_LETTERS = 34  # of a line of an axis's title
# Where a legend or long labels leave little room, the legend is smaller and titles of rising axes are left out: they
# would be cut at both ends, over the figure's own.
_PICTURE = """async ([figure, width, height]) => {
  const gd = document.body.appendChild(document.createElement("div"));
  await Plotly.newPlot(gd, figure);
  if (gd._fullLayout._size.h < 110) {
    const low = { "legend.font.size": 8 };
    for (const name of Object.keys(gd.layout)) if (name.startsWith("yaxis")) low[name + ".title.text"] = "";
    await Plotly.relayout(gd, low);
  }
  const url = await Plotly.toImage(gd, { format: "webp", width, height, scale: 1.5 });
  gd.remove();
  return url;
}"""


def main() -> int:
    """Draw what was asked for, or all of it."""
    from probes import CATALOG
    from workbench.analysis.kinds import kind_of

    names = sys.argv[1:] or [name for name in CATALOG.names if kind_of(CATALOG.get(name)) == "study"]
    FOLDER.mkdir(exist_ok=True)
    index = FOLDER / "index.json"
    said = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
    with Painter() as painter:
        for name in names:
            try:
                result, on = found(name)
                painter.paint(CATALOG.view(name), result, FOLDER / f"{name}.webp")
                said[name] = on
                index.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")
                print(f"{name:28} on {on}, {(FOLDER / f'{name}.webp').stat().st_size / 1e3:.0f} kB", flush=True)
            except Exception as error:  # the others are drawn all the same
                print(f"{name:28} none: {error}", flush=True)
    return 0


def found(name: str) -> tuple[Any, str]:
    """The result of a study, and what it is of, in words."""
    from probes import CATALOG

    if name.startswith("token-erasure"):
        by = "12 words" if name == "token-erasure-swap" else "with probes that learned from a tenth of the text"
        return erased(CATALOG.get(name)), f"{WORDS}, {by}"
    if name == "expert-contrast":
        return routed(CATALOG.get(name)), "a mixture of experts with random weights that reads letters"
    on, params = MADE.get(name, (TOY, {}))
    prompt = TEXT if on == WORDS else ids()
    return CATALOG.get(name).of(params).run(model(on), prompt if CATALOG.get(name).prompted else None), said_of(on)


def erased(kind: Any) -> Any:
    """What is built on readout probes, on little text."""
    from probes.erasure.readout_probes import card_of
    from workbench.corpora import Corpus, python_corpus

    few = Corpus("a tenth of the documentation", python_corpus().documents[::10])
    if kind.name == "token-erasure-probes":
        return card_of(readouts(few))
    with TemporaryDirectory() as folder:
        if kind.name == "token-erasure-accuracy":
            runs = kind.of({"depths": "1,2,4,8,14,20,28", "control": False}).over(
                model(WORDS), few, folder=Path(folder)
            )
        elif kind.name == "token-erasure-vocabulary":
            runs = kind.of({}).over(model(WORDS), few, probes=readouts(few))
        else:
            runs = kind.of({"words": 12}).over(model(WORDS), few)
        return list(runs)[-1]


@cache
def readouts(few: Any) -> Any:
    """Probes of the two depths that are compared."""
    from probes.erasure.trained.trainer import train

    with TemporaryDirectory() as folder:
        return train(model(WORDS), few, path=Path(folder) / "probes.safetensors")


def routed(kind: Any) -> Any:
    """Experts of code and of prose, where a router with random weights tells them apart by their letters."""
    from tests.tiny_models import spelling, tiny_hf
    from workbench.loading.pretrained import wrap

    mixture = wrap(tiny_hf("mixtral", n_layers=4), spelling(), name="a mixture of experts")
    return kind.of({"texts": 32, "length": 48, "draws": 10}).run(mixture)


def said_of(on: str) -> str:
    """`toy:induction, briefly trained`: nobody is to take it for what the study finds."""
    return on if not on.startswith("toy:") else f"{on.partition(',')[0]}, briefly trained"


@cache
def model(name: str) -> Any:
    """Loaded once."""
    from workbench import load

    return load(name)


def ids() -> Any:
    """The prompt of toys, which read no words."""
    from workbench import Prompt

    return Prompt.ids(IDS)


class Painter:
    """A browser that draws figures as the page does."""

    def __enter__(self) -> "Painter":
        from playwright.sync_api import sync_playwright
        from plotly.offline import get_plotlyjs

        self._driver = sync_playwright().start()
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        self._browser = self._driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        self._page = self._browser.new_page()
        self._page.add_script_tag(content=get_plotlyjs())
        return self

    def __exit__(self, *error: object) -> None:
        self._browser.close()
        self._driver.stop()

    def paint(self, view: Any, result: Any, place: Path) -> None:
        """The first figure of a result, compact and in the light theme."""
        from workbench.figures import apply, compact

        figure = compact(apply(view.drawn(view.figures[0], result), False))
        for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
            axis.title.text = "<br>".join(lines(axis.title.text or "", _LETTERS))
        figure.update_layout(width=WIDTH, height=HEIGHT, title_font_size=11, paper_bgcolor="#ffffff")
        url = self._page.evaluate(_PICTURE, [json.loads(figure.to_json()), WIDTH, HEIGHT])
        place.write_bytes(base64.b64decode(url.partition(",")[2]))


if __name__ == "__main__":
    sys.exit(main())
