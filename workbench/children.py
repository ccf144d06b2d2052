"""Another Python of ours: it finds our packages, and never the user's files of the same or the library's names."""

import os
import sys
from pathlib import Path

__all__ = ["own_python"]

_ROOT = str(Path(__file__).parents[1])  # where workbench, probes and apps lie beside each other


def own_python(*words: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a Python that is to run words, such as "-m", "apps.cli", "list".

    Without -P it would look into the working directory first, where people have a `random.py`, or an `apps`.
    """
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return [sys.executable, "-P", *words], {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
