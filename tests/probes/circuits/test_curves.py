"""What curves of faithfulness say in words."""

import numpy as np

from probes.circuits import curves
from workbench.analysis.results import dataset


def test_an_area_that_rounds_to_nothing_has_no_sign():
    """`random -0.00 [-0.00, 0.01]`: neither none nor less than none."""
    spec = ("area", None)
    ends = {f"cpr{end}": ("group", np.array([value, 0.5]), *spec)
            for end, value in (("", -0.001), ("_low", -0.004), ("_high", 0.006))}  # fmt: skip
    table = dataset(None, {"group": ["random", "routes"]}, n_kept=("threshold", [2, 4], "nodes", (0, 4)), **ends)
    said = curves.summary(table.assign_attrs(parts="nodes", n_prompts=20))
    assert said.endswith("routes 0.50 [0.50, 0.50], random 0.00 [0.00, 0.01].")
