"""A model that reads the tasks."""

import pytest

from tests.test_catalog_contract import reader
from tests.tiny_models import tiny_hf


@pytest.fixture(scope="module")
def model():
    """Reads the names of indirect objects as one token each, all else by characters."""
    return reader(tiny_hf("llama"), "tiny-reader")
