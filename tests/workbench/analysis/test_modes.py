"""Modes that a notebook may have set: a run is the same in `torch.inference_mode` and with another default dtype."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from probes import CATALOG, AttributionPatching, DirectLogitAttribution, FlowRoutes, LogitLens
from tests.tiny_models import tiny_hf, tiny_model
from workbench import Prompt, wrap
from workbench.errors import InputError

PROMPT = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7, 31])


@contextmanager
def float64_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


ANALYSES = (
    AttributionPatching(target="#31", against="#7", checked=4),
    LogitLens(),
    DirectLogitAttribution(),
    FlowRoutes(),
    # random numbers of another format are other numbers: noise, directions beside a state
    CATALOG.get("causal-tracing")(target="#31", draws=2),
    CATALOG.get("causal-check")(units="L1 pos 3", method="mean", controls=19),
)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, float64_by_default], ids=lambda m: m.__name__)
@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda a: a.name)
def test_a_run_is_the_same_in_any_mode(mode, analysis):
    plain = analysis.run(tiny_model("llama"), PROMPT)
    model = tiny_model("llama")
    with mode():
        inside = analysis.run(model, PROMPT)
    for name in plain.data_vars:
        if plain[name].dtype.kind == "f":
            # float64 constants may round a last bit elsewhere; a gradient that is missing is all of it
            np.testing.assert_allclose(inside[name], plain[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_weights_made_in_inference_mode_are_said():
    with torch.inference_mode():
        hf = tiny_hf("qwen2")
    with pytest.raises(InputError, match="inference_mode"):
        wrap(hf, None)
