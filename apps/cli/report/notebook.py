"""An explanation as a notebook that computes it again and holds the numbers against those of the report."""

import json
from typing import Any

import numpy as np
import xarray as xr

from workbench.storage.json_text import strict
from workbench.storage.record import record_of

__all__ = ["notebook"]

_TOLERANCE = 1e-3  # other threads and libraries round otherwise: 1e-4 of a logit, and shares are of a few logits
_PLAIN = "float32"  # what `load` takes where nothing is said
_CHECKED = ("gap", "faithfulness", "completeness", "n_kept")


def notebook(result: xr.Dataset, load: dict[str, Any]) -> str:
    """The notebook as JSON (nbformat 4.5). load: the arguments of `workbench.load` that gave the model, but for its
    number format, which the result tells: in another one the numbers of the report do not come out again."""
    record = record_of(result)
    params, ids = record["params"], record["token_ids"]
    numbers = {name: strict(float(result[name])) for name in _CHECKED if name in result}
    prompt = "None" if ids is None or params.get("task") != "prompt" else f"Prompt.ids({list(ids)!r})"
    edits = record["interventions"]
    dtype = record.get("model", {}).get("dtype") or _PLAIN
    given = ", ".join(f"{name}={value!r}" for name, value in load.items())
    given += "" if dtype == _PLAIN else f", dtype=torch.{dtype}"
    asked = ", ".join(f"{name}={value!r}" for name, value in params.items())
    cells = [
        _text(f"# Explained: {_plain(result.attrs['shown_clean'])}\n\n{_plain(result.attrs['summary'])}"),
        _text(
            "This computes the explanation again and holds it against the numbers of the report."
            + (
                f"\n\nThe report was made with interventions, which are not repeated: {', '.join(edits)}."
                if edits
                else ""
            )
        ),
        _code(
            ("" if dtype == _PLAIN else "import torch\n\n") + "from probes import Explain\n"
            "from probes.explain.explain import VIEW\n"
            "from workbench import Prompt, load\n\n"
            f"model = load({given})\n"
            f"result = Explain({asked}).run(model, {prompt})\n"
            'print(result.attrs["summary"])'
        ),
        _code(
            f"report = {_literal(numbers)}\n"
            "for name, value in report.items():\n"
            "    now = float(result[name])\n"
            f"    assert value is None or abs(now - value) < {_TOLERANCE}, (name, now, value)\n"
            '    print(f"{name}: {now:.4g}")'
        ),
        *(_code(f"VIEW.figures[{n}](result)") for n in range(3)),
        *(_code(f"VIEW.tables[{n}](result)") for n in range(2)),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    made = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _code(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def _literal(numbers: dict[str, Any]) -> str:
    """As Python writes it."""
    rounded = {name: value if value is None else float(np.round(value, 6)) for name, value in numbers.items()}
    return repr(rounded)


def _plain(text: str) -> str:
    """A text that Markdown shows as it is: tokens may hold its signs."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-.!|$~" else c for c in str(text)).replace("\n", " ")
