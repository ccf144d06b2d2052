"""A toy of one layer and one head is spoken of in the singular."""

import re

import pytest

from probes import ActiveDormant, AttentionSinks, HeadTable, InductionHeads
from tests.tiny_models import spelling
from workbench.loading.pretrained import wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer

ONE = ToyTransformer(ToyConfig(n_layers=1, n_heads=1, d_model=16, d_head=8, d_vocab=96, n_ctx=64, d_mlp=16))


@pytest.mark.parametrize(
    "analysis",
    [
        AttentionSinks(),
        InductionHeads(length=24),
        HeadTable(texts=4),
        ActiveDormant(length=48, texts=16, ablate="none"),
    ],
    ids=lambda analysis: analysis.name,
)
def test_one_head_is_not_heads(analysis):
    model = wrap(ONE, spelling(), name="one-head")
    result = analysis.run(model, "The cat sat. The cat sat.") if analysis.prompted else analysis.run(model)
    assert "of 1 head " in result.attrs["summary"] and not re.search(r"\b1 heads", result.attrs["summary"])
