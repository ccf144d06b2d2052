"""Fixtures of the whole suite."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from workbench.files import cache_dir
from workbench.loading import bundled

# One thread, in processes that tests start too: tiny models have nothing to share out, and where other work takes turns
# on the same cores, two that wait for each other cost five to ten times as much as one, on the default model too.
# An OMP_NUM_THREADS of the user's own holds for all tests. Set before torch is imported, which reads it.
CHOSEN_THREADS = os.environ.get("OMP_NUM_THREADS")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What lands is decided on the same examples each time; `make fuzz` draws others (and many more).
settings.register_profile("same examples", derandomize=True, deadline=None)  # no test depends on speed
if "FUZZ" not in os.environ:
    settings.load_profile("same examples")

# A script may start the suite with stdin closed, and pytest's stand-in for it asks the real one for its encoding.
if sys.__stdin__ is None:
    sys.__stdin__ = open(os.devnull, encoding="utf-8")  # noqa: SIM115 (for the whole process)


# What takes minutes to make, and is checked when it is read. All else in a user's cache (probes that somebody trained
# for the weights of a tiny model, results, timelines) is neither seen by a test nor left by one.
_TAKEN_OVER = ("models", "toys")


def pytest_configure(config: pytest.Config) -> None:
    """A cache of the run's own, which its processes share."""
    if hasattr(config, "workerinput"):  # set by the process that started this one
        return
    own, users = Path(tempfile.mkdtemp(prefix="workbench-tests-")), cache_dir()
    for name in _TAKEN_OVER:
        (users / name).mkdir(parents=True, exist_ok=True)
        (own / name).symlink_to(users / name, target_is_directory=True)
    before = os.environ.get("WORKBENCH_CACHE")
    os.environ["WORKBENCH_CACHE"] = str(own)

    def put_back() -> None:
        os.environ.pop("WORKBENCH_CACHE")
        if before is not None:
            os.environ["WORKBENCH_CACHE"] = before
        shutil.rmtree(own, ignore_errors=True)  # of links, not of what they lead to; a late process may still write

    config.add_cleanup(put_back)


# Files that take longest: they are begun first, so that no process waits for another at the end.
_FIRST = (
    "test_explorer_page.py",
    "test_catalog_contract.py",
    "test_requests.py",
    "test_explorer_views.py",
    "test_explorer_prompts.py",
    "test_explorer_comparison.py",
    "test_explorer_cancelling.py",
    "test_explorer_links.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every file is run by one process, which makes what it shares once (`--dist loadfile`)."""
    items.sort(key=lambda item: _FIRST.index(item.path.name) if item.path.name in _FIRST else len(_FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Threads of a test, before any of its fixtures is made: the page is tested as it is served, on all cores."""
    if CHOSEN_THREADS is None and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(cores() if item.get_closest_marker("browser") else 1)


@pytest.fixture
def two_threads():
    """For what must hold on any number of threads: sums of a batch are associated in another order than on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def cores() -> int:
    """Of this machine, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


@pytest.fixture(autouse=True)
def read_here(request, monkeypatch):
    """Files of results are looked through by this process, which is quicker; what is marked `apart` starts another."""
    if "apart" not in request.keywords:
        from workbench.storage import inspection, netcdf

        monkeypatch.setattr(netcdf, "looked_through", inspection.inspect)


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
