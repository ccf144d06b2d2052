"""Build the wheel, install it into an empty environment, and run its console script.

    python tests/wheel.py

The libraries come from the environment that runs this (their versions are pinned there, and installing them anew takes
minutes); our own code comes from the wheel alone: what was forgotten in it is missing here.
"""

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What must be in it besides modules, by what breaks without it.
CHECK = """
import importlib.resources as files, pathlib, probes, workbench, apps
place = pathlib.Path(workbench.__file__).resolve()
assert {site!r} in str(place), f"not from the wheel: {{place}}"
assert (files.files("apps.explorer.page") / "assets").is_dir(), "the page's assets"
assert (files.files("workbench") / "py.typed").is_file() and (files.files("workbench") / "__init__.pyi").is_file()
for name in probes.CATALOG.names:
    probes.CATALOG.view(name)
from workbench import load, run
from probes import LogitLens
result = run(load("toy-induction"), [3, 9, 27, 3], [LogitLens()])["logit-lens"]
print(result.attrs["summary"])
"""


def main() -> int:
    """Returns the exit code of the first step that fails."""
    with tempfile.TemporaryDirectory() as place:
        wheels, home = Path(place) / "wheels", Path(place) / "environment"
        # the wheel is made from the source distribution, so that both are complete and nothing is left in the checkout
        step(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(wheels), str(ROOT))
        (wheel,) = wheels.glob("*.whl")
        venv.create(home, with_pip=True)
        python = home / "bin" / "python"
        step(str(python), "-m", "pip", "install", "-qq", "--no-deps", "--disable-pip-version-check", str(wheel))
        site = next((home / "lib").glob("python*/site-packages"))
        # The libraries of this environment, behind the wheel; without its .pth files, which would find the checkout.
        (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        step(str(home / "bin" / "workbench"), "--version", cwd=place)
        step(str(home / "bin" / "workbench"), "list", cwd=place)
        step(str(python), "-c", CHECK.format(site=str(site.resolve())), cwd=place)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, installs and runs")
    return 0


def step(*command: str, cwd: str | None = None) -> None:
    """Run one command; the script ends with its code where it fails."""
    done = subprocess.run(command, cwd=cwd or ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} ...: exit code {done.returncode}\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
