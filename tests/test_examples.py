"""The specs of `examples/` run as they are written."""

import runpy
import shutil
from pathlib import Path

import pytest

from probes import CATALOG
from workbench import batch
from workbench.batch.cells import asked
from workbench.batch.spec import read_spec

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SPECS = sorted(EXAMPLES.glob("*.toml"))


@pytest.fixture
def examples(tmp_path):
    """A copy, to be written into."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("checkpoints")))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_names_analyses_and_parameters_that_there_are(path):
    from tests.tiny_models import tiny_model

    read = read_spec(path)
    found = asked(read.spec, CATALOG, tiny_model("llama"), read.where)
    assert [one.name for one in found] == [one.name for one in read.spec.analyses]
    assert all((path.parent / one.file).is_file() for one in read.spec.prompts if one.file)


@pytest.mark.slow
def test_a_series_of_checkpoints_runs_on_the_folders_that_its_script_writes(examples, tmp_path):
    runpy.run_path(str(examples / "make_checkpoints.py"))["main"](steps=1)
    found = batch.run(examples / "checkpoints.toml", tmp_path / "run", catalog=CATALOG)
    score = found.aggregate("induction-on-prompt")["induction_score"]
    assert found.failures == [] and score["model_step"].values.tolist() == [0, 150]
    assert score.sel(group="repeated").notnull().all() and len(found.table()) == 160


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reviews", "patching"])
def test_the_others_run_on_the_default_model(default_model, examples, tmp_path, name):
    path = examples / f"{name}.toml"
    if name == "patching":  # its studies take minutes: of one pair
        path.write_text(path.read_text().replace("template =", "limit = 1\ntemplate ="))
    found = batch.run(path, tmp_path / "run", catalog=CATALOG, models={"smollm2-135m": default_model})
    assert found.failures == [] and all(found.aggregate(one)["n_prompts"].sum() > 0 for one in found.analyses)
