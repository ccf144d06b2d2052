"""The probe of the notebook `write_a_probe` is held to what ours are held to, and is as short as it says."""

import importlib
import sys
from pathlib import Path

import nbformat
import pytest
import xarray as xr

from probes import CATALOG
from tests.contract import LONG, hold
from tests.tiny_models import tiny_model
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.run import run

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "write_a_probe.ipynb"


def probe_cell() -> str:
    """The cell that holds the analysis and its view."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    (found,) = [cell for cell in cells if "VIEW = View(" in cell]
    return found


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """The cell as a file of a package, as the notebook tells to make one."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "my_package").mkdir()
    (folder / "my_package/__init__.py").write_text("")
    (folder / "my_package/attention_entropy.py").write_text(probe_cell())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("my_package.attention_entropy")
        for name in ("my_package", "my_package.attention_entropy"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("kind", ["llama", "neox"])
def test_it_holds_the_contract(probe, kind):
    hold(probe.VIEW, tiny_model(kind))


def test_it_runs_beside_all_of_ours_in_one_pass(probe):
    model, passes = tiny_model("gpt2"), []
    # token erasure needs probes first, experts a mixture
    other = ("token-erasure", "experts")
    ours = [kind for kind in CATALOG if issubclass(kind, OnPrompt) and kind.name not in other]
    handle = model.adapter.bridge.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    try:
        found = run(model, LONG, [*ours, probe.AttentionEntropy])
    finally:
        handle.remove()
    assert len(passes) == 1 and list(found) == [*(kind.name for kind in ours), "attention-entropy"]
    xr.testing.assert_identical(found["attention-entropy"], probe.AttentionEntropy().run(model, LONG))


def test_it_is_as_short_as_the_notebook_says():
    lines = [line for line in probe_cell().splitlines() if line.strip()]
    assert len(lines) <= 40
