"""Weights are what a module multiplies by, or nothing is read off them: users put more into modules than that."""

import pytest

from probes import DirectLogitAttribution, Neurons
from probes.routes.one_layer import FlowRouteNeurons
from probes.routes.parts import FlowRoutePart
from tests.beside import Beside
from tests.tiny_models import tiny_hf
from workbench import Prompt
from workbench.errors import RefusedError
from workbench.loading.pretrained import wrap
from workbench.models.selfcheck import READOUT

PROMPT = Prompt.ids([0, 7, 31, 64, 12, 7])


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def adapted(request):
    """A model with something beside the output matrix of each MLP; one has a norm behind it."""
    model = tiny_hf(request.param)
    for block in model.model.layers:
        block.mlp.down_proj = Beside(block.mlp.down_proj)
    return wrap(model, None, name="adapted")


@pytest.mark.parametrize(
    "analysis",
    [
        Neurons(layer=1),
        DirectLogitAttribution(neurons=1),
        FlowRouteNeurons(layer=1),
        FlowRoutePart(layer=1, neuron=2),
    ],
    ids=lambda analysis: analysis.name,
)
def test_neurons_of_an_mlp_that_is_more_than_its_output_matrix_are_refused(adapted, analysis):
    with pytest.raises(RefusedError, match=r"neurons of adapted.*'edits of mlp_post take effect' does not hold"):
        analysis.run(adapted, PROMPT)


def test_what_needs_no_neurons_runs_on_it(adapted):
    whole = DirectLogitAttribution().run(adapted, PROMPT)
    assert whole["attribution"].notnull().all()
    part = FlowRoutePart(layer=1).run(adapted, PROMPT)
    assert "neuron" not in part.dims and float(part["norm"]) > 0


def test_an_unembedding_that_is_more_than_its_weight_is_not_split_into_parts():
    """The readout is the module's own and agrees; the parts of a logit came from its weight, and did not."""
    model = tiny_hf("llama")
    model.lm_head = Beside(model.lm_head)
    wrapped = wrap(model, None, name="head")
    assert [item.name for item in wrapped.selfcheck.items if not item.passed] == [READOUT]
    promoting = [Neurons(layer=1), FlowRouteNeurons(layer=0), FlowRoutePart(layer=1)]
    for analysis in (DirectLogitAttribution(), *promoting):
        with pytest.raises(RefusedError, match="readout of the last state"):
            analysis.run(wrapped, PROMPT)
