"""A tiny model, and runs of specs on it."""

import pytest

from tests.tiny_models import tiny_model
from tests.workbench.batch.made import CATALOG
from workbench import batch


@pytest.fixture(scope="module")
def model():
    """Llama, three layers."""
    return tiny_model("llama", n_layers=3)


@pytest.fixture
def run(model, tmp_path):
    """Run a spec on the tiny model in one folder."""

    def go(given, **options):
        return batch.run(given, tmp_path / "run", catalog=CATALOG, models={"tiny": model}, **options)

    return go
