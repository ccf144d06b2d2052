"""What curves of faithfulness say in words."""

import numpy as np
import pytest

from probes.circuits import curves
from tests.tiny_models import tiny_model
from workbench.analysis.results import dataset
from workbench.observation import observe


def test_an_area_that_rounds_to_nothing_has_no_sign():
    """`random -0.00 [-0.00, 0.01]`: neither none nor less than none."""
    spec = ("area", None)
    ends = {f"cpr{end}": ("group", np.array([value, 0.5]), *spec)
            for end, value in (("", -0.001), ("_low", -0.004), ("_high", 0.006))}  # fmt: skip
    table = dataset(None, {"group": ["random", "routes"]}, n_kept=("threshold", [2, 4], "nodes", (0, 4)), **ends)
    said = curves.summary(table.assign_attrs(parts="nodes", n_prompts=20))
    assert said.endswith("routes 0.50 [0.50, 0.50], random 0.00 [0.00, 0.01].")


@pytest.mark.parametrize("n", [1, 20])
def test_where_the_model_does_worse_than_without_all_parts_nothing_is_faithful(n):
    """The quotient turned round: of a target that ablation makes likelier, the edges that speak most against it made
    the best ranking, 1.63 of a share."""
    observation = observe(tiny_model("gpt2"), [[5, 17, 40]])
    whole, empty = np.full(n, -16.9), np.linspace(-16.0, -15.0, n)
    metrics = np.broadcast_to(np.linspace(-17.5, -16.9, 2), (2, 1, n, 2))
    shares, told = (0.5, 1.0), {"parts": "edges", "n_parts": 4, "units": "nats"}
    found = curves.faithfulness_curves(observation, ["routes"], shares, metrics, whole, empty, **told)
    kept = {"n_kept", "model_metric", "empty_metric"}
    assert all(found[name].isnull().all() for name in set(found.data_vars) - kept)
    said = "The model does no better than with all edges ablated: nothing to be faithful to."
    assert curves.summary(found) == said and curves.curve_figure(found) and curves.cmd_figure(found)
    better = curves.faithfulness_curves(observation, ["routes"], shares, -metrics, -whole, -empty, **told)
    assert float(better["faithfulness"][0, -1]) == pytest.approx(1.0) and float(better["cpr"][0]) > 0.5
    assert np.isfinite(better["cpr_low"]).all() == (n >= 16)
