"""Models that read the tasks."""

import pytest

from tests.test_catalog_contract import reader
from tests.tiny_models import spelling, tiny_hf
from workbench.loading.pretrained import wrap


@pytest.fixture(scope="module")
def model():
    """Reads the names of indirect objects as one token each, all else by characters."""
    return reader(tiny_hf("llama"), "tiny-reader")


@pytest.fixture(scope="module")
def speller():
    return wrap(tiny_hf("llama"), spelling(), name="speller")
