"""Which keys a query sees."""

import numpy as np
import torch

from workbench.models.model import Sizes

PLAIN = dict(n_layers=3, n_heads=1, n_key_value_heads=1, d_model=8, d_head=8, d_mlp=0, d_vocab=9, n_ctx=64)
SIZES = Sizes(**PLAIN, sliding=(0, 2), windows=(4, 6), chunked=(2,))


def test_the_first_key_of_windows_and_chunks():
    queries = np.arange(14)
    np.testing.assert_array_equal(SIZES.first_key(0, queries), np.maximum(queries - 3, 0))
    np.testing.assert_array_equal(SIZES.first_key(1, queries), np.zeros(14))
    np.testing.assert_array_equal(SIZES.first_key(2, queries), [0] * 6 + [6] * 6 + [12] * 2)


def test_integers_and_tensors_alike():
    for layer in range(3):
        asked = [int(SIZES.first_key(layer, query)) for query in range(14)]
        assert SIZES.first_key(layer, torch.arange(14)).tolist() == asked


def test_the_smallest_window_is_named():
    assert SIZES.window == 4 and Sizes(**PLAIN).window is None
