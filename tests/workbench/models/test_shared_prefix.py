"""Linear layers take once what rows begin with alike, and what they give is what they give row by row."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from tests.tiny_models import tiny_model
from workbench.intervene import MLP, Ablate, Head, Steer
from workbench.models.hooks import RESID_PRE
from workbench.models.prompt import Prompt
from workbench.models.shared_prefix import linear_layers, sharing
from workbench.observation import observe
from workbench.observation.metrics import Metric
from workbench.observation.sweeps import base_run, values_of


class Counting(nn.Linear):
    """How many vectors it was given in its last calls."""

    taken = 0

    def forward(self, given):
        self.taken += given[..., 0].numel()
        return super().forward(given)


@given(rows=st.integers(1, 5), n=st.integers(1, 9), alike=st.integers(0, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_equal_beginnings_are_multiplied_once(rows, n, alike, seed):
    torch.manual_seed(seed)
    layer, states = Counting(6, 4), torch.randn(rows, n, 6)
    states[:, :alike] = states[:1, :alike]
    if alike < n and rows > 1:
        states[-1, alike] = states[0, alike] + 1.0  # one row alone is another one
    plain, layer.taken = layer(states), 0
    with torch.no_grad(), sharing([layer], lambda: True):
        found = layer(states)
        assert torch.equal(layer(states), found)
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=1e-6)  # float32: sums of six products
    spared = min(alike, n) * (rows - 1)
    assert layer.taken == 2 * (rows * n - (spared if spared >= 0.2 * rows * n else 0))
    assert "forward" not in layer.__dict__


def test_what_becomes_equal_again_is_not_taken_for_what_it_was():
    """Rows that part at a place are multiplied apart, though those of the layer before began alike."""
    torch.manual_seed(1)
    one, other, states = Counting(6, 6), Counting(6, 4), torch.randn(3, 8, 6)
    states[:, :6] = states[:1, :6]
    with torch.no_grad(), sharing([one, other], lambda: True):
        between = one(states).clone()
        between[1, 2] += 1.0
        found = other(between)
    torch.testing.assert_close(found, other(between), atol=1e-6, rtol=1e-6)
    assert one.taken == 6 + 3 * 2 and not torch.equal(found[1, 2], found[0, 2])


def test_another_thread_and_other_kinds_of_layers_meet_nothing():
    layer, seen = Counting(6, 4), []
    states = torch.ones(3, 5, 6)
    mine = threading.get_ident()
    with torch.no_grad(), sharing([layer], lambda: threading.get_ident() == mine):
        thread = threading.Thread(target=lambda: seen.append(layer(states)))
        thread.start()
        thread.join()
        assert layer.taken == 15
        assert torch.equal(layer(states[0]), seen[0][0]) and layer.taken == 20
    block = nn.Sequential(nn.Linear(2, 2), Conv1D(2, 2), nn.Sequential(nn.Linear(2, 2)), Counting(2, 2), nn.ReLU())
    assert linear_layers([block]) == [block[0], block[1], block[2][0]]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3", "mixtral"])
def test_a_sweep_at_late_positions_gives_what_each_run_gives(kind):
    """Also of a model that carries an intervention where the rows are still alike."""
    model = tiny_model(kind, n_layers=3).edited([Ablate(Head(1, 0), positions=(2,))])
    late = torch.zeros(10, 32)
    late[7:] = torch.randn(3, 32, generator=torch.manual_seed(0))
    cells = [[Ablate(Head(layer, head), positions=(6, 8))] for layer in range(3) for head in range(4)]
    cells += [[Ablate(MLP(1), positions=(9,))], [Steer(0, late, hook=RESID_PRE)], [Steer(2, late)]]
    base = base_run(model, Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9]))
    metric = Metric("logit difference", 31, 7)
    found = values_of(model, base, cells, metric)
    for index, cell in enumerate(cells):
        plain = observe(model, base.tokens, interventions=cell).logits[0]
        torch.testing.assert_close(found[index], metric.of_logits(plain[None])[0], atol=1e-5, rtol=1e-4)
    assert found.unique().numel() > 9  # in the last layer positions 6 and 8 reach no logit
