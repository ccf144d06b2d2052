"""Models that are loaded beside each other."""

import subprocess
import sys

import pytest

BOTH = """
import sys, threading, time
from workbench import load

def one(name, later):
    time.sleep(later)
    try:
        print("loaded", load(name).name)
    except Exception as error:
        print("failed", type(error).__name__, error)

given = (("toy-induction", 0), (sys.argv[1], float(sys.argv[2])))
threads = [threading.Thread(target=one, args=both) for both in given]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.parametrize("later", [0.0, 0.4])
def test_two_models_are_loaded_at_once_in_a_fresh_process(tiny_dir, later):
    """As a page does that is opened with two: one of them was "no usable model", or broke with an ImportError."""
    given = [sys.executable, "-c", BOTH, str(tiny_dir), str(later)]
    done = subprocess.run(given, capture_output=True, text=True, timeout=300)
    said = done.stdout.splitlines()
    assert len(said) == 2 and all(line.startswith("loaded ") for line in said), done.stdout + done.stderr[-2000:]
