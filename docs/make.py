"""Build the documentation into site/: pages of our own, one per analysis made from its entry, tutorials, the API.

    python docs/make.py [--no-figures]

It is strict: a link that leads nowhere, a page that nothing leads to, or a public name without a docstring is an error.
Figures are drawn on the default model; a study whose predicted cost is above `BUDGET` gets none, and says so.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PAGES = ROOT / "docs" / "pages"
PROMPT = "When Mary and John went to the store, John gave a drink to"
BUDGET = 1100.0  # bare forward passes of a short prompt that a figure may cost
SIZES = {
    "prompt": "One pass over the prompt, shared with others.",
    "model": "On a stimulus of its own, once per model.",
    "study": "Several passes.",
}
# What the API shows: rooms by module, those that a user imports from.
API = {
    "Loading": ("workbench.loading.pretrained",),
    "Models, prompts, hooks": ("workbench.models.model", "workbench.models.prompt", "workbench.models.hooks",
                               "workbench.models.readout", "workbench.models.selfcheck", "workbench.card",
                               "workbench.cache"),
    "Observation": ("workbench.observation.need", "workbench.observation.run", "workbench.observation.observation",
                    "workbench.observation.reducers", "workbench.observation.recording",
                    "workbench.observation.metrics", "workbench.observation.sweeps"),
    "Interventions": ("workbench.intervene.ablation", "workbench.intervene.patch", "workbench.intervene.knockout",
                      "workbench.intervene.steer", "workbench.intervene.units", "workbench.intervene.edit",
                      "workbench.intervene.text", "workbench.intervene.context"),
    "Analyses": ("workbench.analysis.kinds", "workbench.analysis.parameters", "workbench.analysis.view",
                 "workbench.analysis.run", "workbench.analysis.catalog", "workbench.analysis.results",
                 "workbench.analysis.keys", "workbench.analysis.compare"),
    "Batches": ("workbench.batch.runs", "workbench.batch.spec", "workbench.batch.values.merge",
                "workbench.batch.values.tables"),
    "Statistics": ("workbench.statistics",),
    "Texts": ("workbench.corpora",),
    "Errors": ("workbench.errors",),
}  # fmt: skip


def main() -> int:
    """Lay out the sources, build, and say where."""
    parser = argparse.ArgumentParser(description="Build the documentation into site/.")
    parser.add_argument("--no-figures", action="store_true", help="pages of analyses without figures, in seconds")
    arguments = parser.parse_args()
    undocumented = list(_undocumented())
    if undocumented:
        print("\n".join(f"no docstring: {name}" for name in undocumented), file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        pages = Path(place) / "pages"
        nav = _lay_out(pages, figures=not arguments.no_figures)
        config = yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8"))
        config |= {"docs_dir": str(pages), "site_dir": str(ROOT / "site"), "nav": nav}
        config["plugins"][1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
        (Path(place) / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-f", f"{place}/mkdocs.yml"]
        quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # advertises another tool at every build
        done = subprocess.run(command, cwd=ROOT, env=quiet)
    if done.returncode == 0:
        print(f"Built {ROOT / 'site' / 'index.html'}")
    return done.returncode


def _lay_out(pages: Path, *, figures: bool) -> list[Any]:
    """Write all sources; returns the navigation."""
    shutil.copytree(PAGES, pages)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("docs/pages/", "")
    (pages / "contributing.md").write_text(contributing, encoding="utf-8")
    (pages / "changelog.md").write_text((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), encoding="utf-8")
    return [
        {"What it is": "index.md"},
        {"Tutorials": _tutorials(pages)},
        {"Analyses": _analyses(pages, figures)},
        {"Understand it": [{"Batches": "batches.md"}, {"What a batch costs": "scaling.md"},
                           {"Toys": "formation.md"}, {"Architecture": "architecture.md"},
                           {"The code in an hour": "reading.md"}, {"Glossary": "glossary.md"},
                           {"Calibration": "calibration.md"}, {"Circuits": "circuits.md"},
                           {"What replicates": "replication.md"}, {"Files and limits": "files.md"},
                           {"Models": "models.md"}, {"Programs and agents": "agents.md"}]},
        {"API": _api(pages)},
        {"Work on it": [{"Contributing": "contributing.md"}, {"Changelog": "changelog.md"}]},
    ]  # fmt: skip


# --- public names -----------------------------------------------------------------------------------------------------


def _undocumented() -> Iterator[str]:
    """Public functions and classes of the instrument and the analyses that have no docstring."""
    for path in sorted([*(ROOT / "workbench").rglob("*.py"), *(ROOT / "probes").rglob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            yield f"{path.relative_to(ROOT)}"
        for node in tree.body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                yield f"{path.relative_to(ROOT)}: {node.name}"


# --- the API ----------------------------------------------------------------------------------------------------------


def _api(pages: Path) -> list[Any]:
    (pages / "api").mkdir()
    nav = []
    for title, modules in API.items():
        name = f"api/{title.lower().replace(', ', '-').replace(' ', '-')}.md"
        parts = [f"# {title}\n", *(f"## {module}\n\n::: {module}\n" for module in modules)]
        (pages / name).write_text("\n".join(parts), encoding="utf-8")
        nav.append({title: name})
    return nav


# --- tutorials --------------------------------------------------------------------------------------------------------


def _tutorials(pages: Path) -> list[Any]:
    """The notebooks as pages, in the order of their length: the shortest is the easiest."""
    (pages / "tutorials").mkdir()
    nav = []
    books = sorted((ROOT / "notebooks").glob("*.ipynb"), key=lambda path: path.stat().st_size)
    for path in sorted(books, key=lambda path: path.stem != "quickstart"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join(filter(None, map(_cell, cells)))
        title = next(line[2:] for line in text.splitlines() if line.startswith("# "))
        note = f"\n\n*Made from `notebooks/{path.name}`, which CI executes.*\n"
        (pages / "tutorials" / f"{path.stem}.md").write_text(text + note, encoding="utf-8")
        nav.append({title: f"tutorials/{path.stem}.md"})
    return nav


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"]).strip()
    return source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```" if source else ""


# --- analyses ---------------------------------------------------------------------------------------------------------


def _analyses(pages: Path, figures: bool) -> list[Any]:
    """One page per analysis, from its class and view, and an overview."""
    from probes import CATALOG

    (pages / "analyses").mkdir()
    drawn = _figures(pages) if figures else {}
    nav: list[Any] = [{"Overview": "analyses/index.md"}]
    rows = ["# Analyses\n", "| analysis | what it answers |", "|---|---|"]
    rooms: dict[str, list[Any]] = {}
    for view in CATALOG.views:
        (pages / "analyses" / f"{view.name}.md").write_text(_page(view, drawn.get(view.name, "")), encoding="utf-8")
        rooms.setdefault(view.analysis.__module__.split(".")[1].capitalize(), []).append(
            {view.title: f"analyses/{view.name}.md"}
        )
        rows.append(f"| [`{view.name}`]({view.name}.md) | {view.question} |")
    (pages / "analyses" / "index.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return nav + [{room: found} for room, found in rooms.items()]


def _page(view: Any, figure: str) -> str:
    from workbench.analysis.kinds import kind_of

    analysis = view.analysis
    parts = [
        f"# {view.title}\n",
        f"*{escape(view.question)}*\n",
        f"`workbench run {view.name}` · `from probes import {analysis.__name__}` · {SIZES[kind_of(analysis)]}\n",
        figure,
        f"## Definition\n\n{_plain(analysis.definition)}\n",
        f"## Limits\n\n{_plain(analysis.limits)}\n",
        f"## Returns\n\n{_plain(analysis.returns)}\n" if analysis.returns else "",
        _table("Parameters", analysis.parameters()),
        _table("Parameters of the drawing alone", view.display_parameters),
        f"## Source\n\n{_plain(analysis.source)}\n",
        f"Self-check items it relies on: {'; '.join(analysis.requires)}.\n" if analysis.requires else "",
        "" if analysis.editable else "Interventions are refused: what it stands on was made on the model as it is.\n",
        f"Code: `{analysis.__module__}`.\n",
    ]
    return "\n".join(filter(None, parts))


def _plain(text: str) -> str:
    """Text as it stands: brackets and stars of formulas are no markup; what is between backticks stays code."""
    pieces = text.split("`")
    for i in range(0, len(pieces), 2):
        pieces[i] = escape(pieces[i], quote=False)
        for mark in "*[_":
            pieces[i] = pieces[i].replace(mark, f"\\{mark}")
    return "`".join(pieces)


def _table(title: str, parameters: tuple[Any, ...]) -> str:
    if not parameters:
        return ""
    rows = [f"## {title}\n", "| name | default | values | meaning |", "|---|---|---|---|"]
    for p in parameters:
        cells = (f"`{p.name}`", f"`{p.default!r}`", _values(p), _plain(p.help))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _values(p: Any) -> str:
    kind = p.type.__name__ + (" or none" if p.optional else "")
    if p.choices:
        return ", ".join(f"`{choice}`" for choice in p.choices) + (", or files" if p.files else "")
    if p.low is not None or p.high is not None:
        return f"{kind}, {'any' if p.low is None else p.low} to {'any' if p.high is None else p.high}"
    return kind


def _figures(pages: Path) -> dict[str, str]:
    """The first figure of every analysis that the budget allows, as HTML that one copy of plotly.js draws."""
    from plotly.offline import get_plotlyjs

    from probes import CATALOG
    from workbench import load
    from workbench.analysis.run import Failure, run
    from workbench.models.prompt import tokenise

    (pages / "assets").mkdir(exist_ok=True)
    (pages / "assets" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    model = load()
    tokens = tokenise(model, PROMPT)
    found: dict[str, str] = {}
    asked = [view.analysis() for view in CATALOG.views]
    cheap = [one for one in asked if one.cost(model.sizes, len(tokens)) <= BUDGET]
    started = time.perf_counter()
    results = run(model, PROMPT, cheap)
    print(f"{len(cheap)} analyses drawn in {time.perf_counter() - started:.0f} s", flush=True)
    for one in asked:
        result = results.get(one.name)
        if result is None:
            passes = one.cost(model.sizes, len(tokens))
            found[one.name] = f"*No figure here: it takes about {passes:.0f} forward passes of a short prompt.*\n"
        elif isinstance(result, Failure):
            found[one.name] = f"*No figure here: {escape(result.sentence)}*\n"
        else:
            found[one.name] = _figure(CATALOG.view(one.name), result)
    return found


def _figure(view: Any, result: Any) -> str:
    if not view.figures:
        return ""
    figure = view.drawn(view.figures[0], result)
    html = figure.to_html(full_html=False, include_plotlyjs=False, default_height="420px")
    said = escape(view.said(result))
    about = f"On the default model, `{PROMPT}`." if view.analysis.prompted else "On the default model."
    return f'<script src="../assets/plotly.min.js"></script>\n{html}\n\n{said}\n\n*{about}*\n'


if __name__ == "__main__":
    sys.exit(main())
