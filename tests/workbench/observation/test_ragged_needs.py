"""Needs whose kept length differs from layer to layer and from batch to batch."""

import torch

from tests.tiny_models import tiny_model
from workbench import PATTERN, Need, observe


def as_many_as_layer_and_length(pattern, site):
    """Layer + length numbers per prompt, `[batch, edge, 2]`, NaN beyond a shorter prompt's."""
    counts = site.lengths + site.layer
    table = pattern.new_full((len(counts), int(counts.max()), 2), torch.nan)
    for row, count in enumerate(counts.tolist()):
        table[row, :count] = count
    return table


NEED = Need((PATTERN,), as_many_as_layer_and_length, dims="edge column")


def test_layers_keep_their_own_length():
    kept = observe(tiny_model("llama"), [[5, 9, 17], [1, 2, 3, 4, 5]], [NEED], positions="none")[NEED]
    assert [tuple(layer.shape) for layer in kept] == [(2, 5, 2), (2, 6, 2)]
    assert kept[1][0, :, 0].nan_to_num(-1).tolist() == [4, 4, 4, 4, -1, -1]


def test_batches_are_joined_and_padded():
    kept = observe(tiny_model("llama"), [[5, 9, 17], [1, 2, 3, 4, 5]], [NEED], positions="none", batch_tokens=5)[NEED]
    assert [tuple(layer.shape) for layer in kept] == [(2, 5, 2), (2, 6, 2)]
    assert kept[0][0].isnan().sum() == 4
