"""Compiled loops against their torch twins and against float64 formulas written out here."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import InputError
from workbench.kernels import proximity as kernels

BOTH = [True, False]


def causal_case(n_heads=3, n_pos=9, d_head=4, d_model=24, seed=0, scale=1.0):
    """A causal pattern, values, W_O and a target that holds the parts and something of its own."""
    torch.manual_seed(seed)
    scores = torch.randn(n_heads, n_pos, n_pos).masked_fill(~torch.ones(n_pos, n_pos).tril().bool(), -torch.inf)
    pattern = scores.softmax(-1)
    v, W_O = scale * torch.randn(n_pos, n_heads, d_head), torch.randn(n_heads, d_head, d_model)
    target = torch.einsum("hqk,khe,hed->qd", pattern, v, W_O) + torch.randn(n_pos, d_model)
    return pattern, v, W_O, target


def plain(pattern, v, W_O, target, p):
    """The definition, everything held at once, in double precision."""
    parts = torch.einsum("hqk,khe,hed->hqkd", pattern.double(), v.double(), W_O.double())
    y = target.double()[None, :, None]
    return (y.norm(p, dim=-1) - (y - parts).norm(p, dim=-1)).clamp(min=0)


@pytest.mark.parametrize("compiled", BOTH)
@pytest.mark.parametrize("p", [1, 2])
def test_proximity_is_the_definition(compiled, p):
    case = causal_case()
    found = kernels.proximity(*case, p=p, compiled=compiled)
    torch.testing.assert_close(found.double(), plain(*case, p), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("compiled", BOTH)
def test_small_parts_stay_within_a_ten_thousandth_of_the_row(compiled):
    """Values so small that most pairs are taken to first order, beside targets close to zero here and there."""
    pattern, v, W_O, target = causal_case(4, 32, 8, 64, seed=1, scale=1e-3)
    target[:, ::3] *= 1e-4
    found, exact = (
        kernels.proximity(pattern, v, W_O, target, compiled=compiled).double(),
        plain(pattern, v, W_O, target, 1),
    )
    first_order = (
        pattern.abs() * (v.transpose(0, 1) @ W_O).abs().sum(-1)[:, None] <= 1e-4 * target.abs().sum(-1)[:, None]
    )
    assert 0.2 < first_order[pattern > 0].float().mean() < 1
    assert ((found - exact).abs() / target.double().abs().sum(-1)[:, None]).max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 70), st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
def test_compiled_and_torch_agree(seed, n_pos, scale):
    case = causal_case(2, n_pos, 3, 17, seed, scale)
    compiled, twin = (kernels.proximity(*case, compiled=way) for way in BOTH)
    whole = case[-1].abs().sum(-1)[None, :, None]
    assert ((compiled - twin).abs() / whole).max() < 1e-4
    others = torch.rand(n_pos, dtype=torch.float64)
    a, b = (kernels.strongest(compiled, others, min_share=0.01, min_coverage=0.9, compiled=way) for way in BOTH)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("compiled", BOTH)
def test_a_massive_dimension_does_not_swamp_the_large_parts(compiled):
    """Beside one dimension of 60,000 (an attention sink's) float32 norms are right to 4e-3 only; differences must do
    better. The parts are large enough to be computed exactly."""
    pattern, v, W_O, target = causal_case(seed=3, scale=1e3)
    target[:, 0] = 60_000.0
    found, exact = (
        kernels.proximity(pattern, v, W_O, target, compiled=compiled).double(),
        plain(pattern, v, W_O, target, 1),
    )
    assert ((found - exact).abs() / target.double().abs().sum(-1)[:, None]).max() < 1e-6


@pytest.mark.parametrize(
    ("part", "rest", "expected"),
    [((1, 1), (0, 0), (1.0, 0.0)), ((3, 0), (1, 4), (3 / 8, 5 / 8)), ((2, 0), (-1, 3), (0.0, 1.0))],
)
def test_part_proximity_by_hand(part, rest, expected):
    part, rest = torch.tensor(part, dtype=torch.float32), torch.tensor(rest, dtype=torch.float32)
    found = torch.stack([kernels.part_proximity(z, part + rest) for z in (part, rest)])
    torch.testing.assert_close(found / found.sum(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("rows", [(7, 33), (1, 33), (33,)])
def test_part_proximity_is_the_same_compiled_also_with_one_row_for_all(rows):
    part, target = torch.randn(rows), torch.randn(2, 7, 33) if len(rows) == 1 else torch.randn(7, 33)
    compiled, twin = (kernels.part_proximity(part, target, compiled=way) for way in BOTH)
    assert compiled.dtype == twin.dtype == torch.float64 and compiled.shape == twin.shape == target.shape[:-1]
    torch.testing.assert_close(compiled, twin, rtol=0, atol=1e-5)  # float32 differences of 33 numbers near 1


@pytest.mark.parametrize("compiled", BOTH)
def test_strongest_keeps_the_fewest_that_cover(compiled):
    row = torch.tensor([[0.5, 0.25, 0.15, 0.06, 0.04]])
    table = torch.zeros(1, 5, 5)
    table[0, 4] = row
    kept = kernels.strongest(table, torch.zeros(5).double(), min_share=1.0, min_coverage=0.8, compiled=compiled)
    assert kept.key.tolist() == [0, 1, 2] and set(kept.query.tolist()) == {4}
    kept = kernels.strongest(table, torch.zeros(5).double(), min_share=0.05, min_coverage=0.1, compiled=compiled)
    assert kept.key.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(kept.total[4], table.double().sum())


@pytest.mark.parametrize("compiled", BOTH)
def test_rows_without_any_part_keep_none_and_give_no_nan(compiled):
    kept = kernels.strongest(
        torch.zeros(2, 3, 3), torch.zeros(3).double(), min_share=0.0, min_coverage=1.0, compiled=compiled
    )
    assert len(kept.share) == 0 and kept.total.tolist() == [0, 0, 0]


def test_many_threads_at_once_get_the_same_numbers():
    case = causal_case(2, 300, 4, 16)
    alone = kernels.proximity(*case)
    found = [None] * 4

    def work(i):
        found[i] = kernels.proximity(*case)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(torch.equal(alone, one) for one in found)


def test_splitting_over_threads_changes_nothing():
    case = causal_case(2, 300, 4, 16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = kernels.proximity(*case)
        torch.set_num_threads(3)
        three = kernels.proximity(*case)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(one.numpy(), three.numpy(), atol=1e-4)


def test_an_unknown_norm_is_refused():
    with pytest.raises(InputError, match="p=3"):
        kernels.proximity(*causal_case(), p=3)


CANNOT = """
import warnings
import torch
from workbench.errors import SlowWarning
from workbench.kernels import proximity as kernels
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    part, target = torch.randn(4, 8), torch.randn(4, 8)
    found = kernels.part_proximity(part, target)
    kernels.part_proximity(part, target)
assert torch.equal(found, kernels.part_proximity(part, target, compiled=False))
(one,) = [w for w in said if w.category is SlowWarning]
print(one.message)
"""
NO_CACHE = "from numba.core import caching; caching.CacheImpl._locator_classes = []"  # nothing can be written
NO_LIBRARY = """
import ctypes
def unloaded(self, name, *more, loading=ctypes.CDLL.__init__, **options):  # as where the address space is limited
    if "llvmlite" in str(name):
        raise OSError("failed to map segment from shared object")
    loading(self, name, *more, **options)
ctypes.CDLL.__init__ = unloaded
"""


@pytest.mark.parametrize(
    ("before", "more", "said"),
    [
        (NO_CACHE, {}, "NUMBA_CACHE_DIR"),
        (NO_LIBRARY, {}, "numba cannot be loaded (OSError: Could not find/load shared object"),
        ("", {"NUMBA_NUM_THREADS": "0"}, "numba refuses its settings (ValueError"),
    ],
)
def test_where_nothing_can_be_compiled_the_twin_answers_with_a_word(before, more, said):
    words, root = [sys.executable, "-c", f"{before}{CANNOT}"], Path(__file__).parents[3]
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, timeout=300, env=os.environ | more)
    assert said in done.stdout, done.stdout
    assert done.returncode == 0, done.stderr
