"""Fixtures of the whole suite."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from workbench.models import bundled

# A script may start the suite with stdin closed, and pytest's stand-in for it asks the real one for its encoding.
if sys.__stdin__ is None:
    sys.__stdin__ = open(os.devnull, encoding="utf-8")  # noqa: SIM115 (for the whole process)


def find_chromium() -> str | None:
    """The Chromium to test with: CHROMIUM if it is set, else the first usual name on the PATH."""
    chosen = os.environ.get("CHROMIUM")
    names = [chosen] if chosen else ["chromium", "chromium-browser", "google-chrome"]
    return next((found for found in map(shutil.which, names) if found), None)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of a Chromium. Without one the test is skipped, or fails where REQUIRE_BROWSER=1 asks for it."""
    found = find_chromium()
    if found is None:
        outcome = pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip
        outcome("no Chromium found: install one, or set CHROMIUM to its path")
    return found


@pytest.fixture(scope="session")
def default_model_dir() -> Path:
    """Directory of the default model; fetched and converted by the first test that asks, where the cache has none."""
    return bundled.ensure()


@pytest.fixture(scope="session")
def default_model(default_model_dir):
    """The default model, loaded once for the whole suite."""
    from workbench import load

    return load(bundled.NAME)


@pytest.fixture(scope="session", params=["gpt2", "llama", "neox", "gemma3", "qwen2"])
def tiny(request):
    """Each tiny model in turn."""
    from tests.tiny_models import tiny_model

    return tiny_model(request.param)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory) -> Path:
    """Directory of a tiny model in Hugging Face format, with a tokenizer of single characters."""
    from tests.tiny_models import spelling, tiny_hf

    directory = tmp_path_factory.mktemp("tiny")
    tiny_hf("llama").save_pretrained(directory)
    spelling().save_pretrained(directory)
    return directory
