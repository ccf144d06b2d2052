"""Models of few digits: numpy has no bfloat16, netCDF no float16, and no result may stumble over either."""

import numpy as np
import pytest
import torch

from probes import CATALOG, FlowRoutePart, Neurons
from tests.tiny_models import spelling, tiny_hf
from workbench import Need, observe, open_result, save
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.results import dataset
from workbench.analysis.run import run
from workbench.errors import WorkbenchError
from workbench.loading.pretrained import wrap
from workbench.models.hooks import PATTERN

ON_PROMPT = [entry for entry in map(CATALOG.get, CATALOG.names) if issubclass(entry, OnPrompt)]


def first_key(pattern, site):  # the README's: it leaves the numbers as the model has them
    return pattern[..., 0].mean(-1)


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def half(request):
    return wrap(tiny_hf("llama").to(request.param), spelling(), name="half")


def test_every_analysis_of_a_prompt_runs_in_half_precision(half):
    """`neurons` and `flow-route-part` were TypeErrors on every bfloat16 model."""
    found = run(half, "the cat sat on the mat", [*ON_PROMPT, FlowRoutePart])
    assert {"neurons", "flow-route-part", "logit-lens"} <= set(found)
    for name, result in found.items():
        if hasattr(result, "error"):
            assert isinstance(result.error, WorkbenchError) and "ScalarType" not in str(result.error), name
            continue
        assert all(v.dtype != np.float16 for v in result.variables.values()), name
    full = Neurons().run(wrap(tiny_hf("llama"), spelling(), name="full"), "the cat sat on the mat")
    np.testing.assert_allclose(found["neurons"]["share"], full["share"], atol=0.02)


def test_what_a_reducer_leaves_in_half_precision_is_kept_in_single(half, tmp_path):
    need = Need((PATTERN,), first_key, dims="head")
    seen = observe(half, ["the cat", "a"], [need])
    assert seen[need].dtype == torch.float32 and seen.array(need).dtype == np.float32
    whole = seen[need].to(half.adapter.parameters()[0][1].dtype)
    result = dataset(seen.prompt(0), share=("layer head", whole[:, 0], "share", (0, 1)))
    assert result["share"].dtype == np.float32
    save(result, tmp_path / "r.nc")
    assert open_result(tmp_path / "r.nc")["share"].dtype == np.float32
