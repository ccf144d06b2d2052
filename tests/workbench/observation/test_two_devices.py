"""A model split over two devices: what is seen follows its layer, and results are those of the whole model.

The devices are pretended (`tests.two_devices`): that tensors of two places never meet is seen here, what GPUs compute
is not verified on any.
"""

import numpy as np
import pytest
import torch

from probes import AttentionSinks, DirectLogitAttribution, FlowRoutes, LogitLens
from probes.neurons.neurons import Neurons
from tests.tiny_models import tiny_hf
from tests.two_devices import FIRST, SECOND, TwoDevices, put, split, spread
from workbench.intervene import Ablate, Head, Knockout
from workbench.loading.pretrained import wrap
from workbench.models.hooks import RESID_PRE
from workbench.models.prompt import Prompt
from workbench.observation import Need, keep, observe

PROMPT = Prompt.ids([4, 33, 80, 33, 12, 7, 50, 51, 52, 3, 9, 10, 11, 33])
ANALYSES = (
    LogitLens(top_k=2), DirectLogitAttribution(target="#31"), FlowRoutes(min_share=0.0), Neurons(layer=0, pos=3),
    AttentionSinks(),
)  # fmt: skip


@pytest.fixture(scope="module", params=["hooks of ours", "accelerate"])
def parted(request):
    hf = tiny_hf("llama")
    (split if request.param == "hooks of ours" else spread)(hf, hf.model.layers, [hf.model.norm, hf.lm_head])
    with TwoDevices():
        return wrap(hf, None, name="parted")


@pytest.fixture(scope="module")
def whole():
    return wrap(tiny_hf("llama"), None, name="whole")


def test_the_pretended_devices_do_not_meet():
    here, there = put(torch.ones(3), FIRST), put(torch.ones(3), SECOND)
    with TwoDevices():
        assert here.to(SECOND).device == SECOND and (here * 2).device == FIRST and here.cpu().device.type == "cpu"
        with pytest.raises(RuntimeError, match="same device"):
            here + there


def test_the_self_check_passes(parted):
    assert parted.selfcheck.passed, [item.sentence for item in parted.selfcheck.items if not item.passed]
    with TwoDevices():
        assert (parted.adapter.place(0), parted.adapter.place(1)) == (FIRST, SECOND)


def device_of(resid, site):
    """Which device a reducer finds everything of its layer on."""
    found = {x.device.index for x in (resid, site.tokens, site.mask, site.lengths, site.weights.W_O)}
    return torch.full((len(resid),), float(next(iter(found))) if len(found) == 1 else torch.nan)


def test_reducers_follow_their_layers_device(parted):
    """A block is handed a state that still lies where the block before it does."""
    with TwoDevices():
        need = Need((RESID_PRE,), device_of)
        assert observe(parted, PROMPT, [need])[need].cpu()[:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("edits", [[], [Ablate(Head(1, 2)), Knockout((5,), (2,), (0,))]], ids=["plain", "edited"])
def test_analyses_say_the_same_of_a_split_model(parted, whole, analysis, edits):
    expected = analysis.run(whole, PROMPT, interventions=edits)
    with TwoDevices():
        found = analysis.run(parted, PROMPT, interventions=edits)
    for name, variable in expected.data_vars.items():
        if variable.dtype.kind == "f":  # the same operations on the same CPU
            np.testing.assert_allclose(found[name], variable, atol=1e-6, rtol=1e-6, err_msg=str(name))


def test_no_key_knows_where_weights_lie(parted, whole):
    """A shard that one worker computes on two devices is the shard of another with a single one."""
    if getattr(parted.adapter.hf_model, "hf_device_map", None) is not None:  # hooks of one's own may do anything
        assert parted.identity.settings_hash == whole.identity.settings_hash
        assert LogitLens().spec_key(parted, None) == LogitLens().spec_key(whole, None)


def test_logits_are_those_of_the_whole_model(parted, whole):
    with TwoDevices():
        found = observe(parted, PROMPT, positions="all").logits[0].cpu()
    torch.testing.assert_close(found, observe(whole, PROMPT, positions="all").logits[0], atol=0, rtol=0)
    with TwoDevices():
        need = Need((RESID_PRE,), keep, dims="pos d_model")
        assert observe(parted, PROMPT, [need])[need].device == SECOND  # where the readout lies
