"""Where somebody works may be a bare folder `probes/` or `apps/`: it does not hide ours."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ASKS = "from probes import CATALOG; import apps.cli, workbench; print(len(CATALOG.names), apps.cli.__file__)"


@pytest.fixture
def elsewhere(tmp_path):
    """A working directory with folders of our names, and something in them, but no packages."""
    for name in ("probes", "apps", "workbench"):
        (tmp_path / name / "cli").mkdir(parents=True)
        (tmp_path / name / "notes.txt").write_text("mine")
    return tmp_path


def test_a_plain_path_behind_the_working_directory_is_found(elsewhere):
    """As an installation has it: ours stand behind the working directory on Python's path."""
    code = f"import sys; sys.path = [''] + [p for p in sys.path if p] + [{str(ROOT)!r}]; {ASKS}"
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and str(ROOT) in done.stdout, done.stderr


def test_an_editable_installation_is_a_plain_path(tmp_path):
    """A finder of setuptools' would stand behind Python's own, which takes a bare folder for a package."""
    code = f"from setuptools.build_meta import build_editable; build_editable({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        paths = [name for name in opened.namelist() if name.endswith(".pth")]
        assert [opened.read(name).decode().strip() for name in paths] == [str(ROOT)]
        assert not [name for name in opened.namelist() if "finder" in name]
