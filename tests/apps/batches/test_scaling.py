"""Counted costs, held against what a transformer's matrices say."""

import pytest

from apps.batches.scaling import cost_of
from tests.tiny_models import tiny_model


def test_the_operations_of_a_pass_are_those_of_its_matrices():
    model = tiny_model("llama", n_layers=2)
    s, (few, many) = model.sizes, (cost_of(model, None, 1, 8), cost_of(model, None, 3, 8))
    assert many.flops == pytest.approx(3 * few.flops)
    keys = 2 * s.d_model * s.n_key_value_heads * s.d_head
    products = 2 * s.d_model * s.n_heads * s.d_head + keys + 3 * s.d_model * s.d_mlp + 2 * 8 * s.n_heads * s.d_head
    matrices = s.n_layers * 8 * products
    assert few.flops == pytest.approx(
        2 * (matrices + s.d_model * s.d_vocab), rel=0.15
    )  # logits of one position, or of 8


def test_an_analysis_costs_its_pass_and_more_and_writes_its_rows():
    model = tiny_model("llama", n_layers=2)
    bare, found = cost_of(model, None, 2, 12), cost_of(model, "attention-sinks", 2, 12)
    assert found.flops >= bare.flops and found.kept > 0
    assert found.written >= 4 * model.sizes.n_layers * model.sizes.n_heads and found.predicted >= 1
