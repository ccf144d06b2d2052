"""What visible keys amount to, and how long an input must be to see it."""

from types import SimpleNamespace

import pytest
import torch

from workbench.loading.pretrained import wrap
from workbench.loading.toys.families import FAMILIES, random_model
from workbench.loading.windows import LONGEST_RUN, reference_length, shape_of

N = 20
QUERY, KEY = torch.arange(N)[:, None], torch.arange(N)[None]
CAUSAL = KEY <= QUERY


def config(**values):
    return SimpleNamespace(to_dict=lambda: values, max_position_embeddings=4096)


def test_shapes():
    assert shape_of(CAUSAL) == (None, False)
    assert shape_of(CAUSAL & (QUERY - KEY < 7)) == (7, False)
    assert shape_of(CAUSAL & (QUERY // 6 == KEY // 6)) == (6, True)
    odd = CAUSAL.clone()
    odd[9, 2] = False
    assert shape_of(odd) == (None, False)  # which the self-check then finds not to be so


@pytest.mark.parametrize(
    ("said", "length"),
    [
        ({"sliding_window": 100}, 102), ({"attention_chunk_size": 300, "window_size": 50}, 302),
        ({"local_span": 60}, 62),
        ({"sliding_window": 10}, 24), ({"sliding_window": None}, 24), ({"use_sliding_window": True}, 24),
        ({"num_local_experts": 400}, 24), ({"rope_local_base_freq": 300}, 24), ({"sliding_window": 2000}, 24),
        ({"sliding_window": 4096}, 24),
    ],
)  # fmt: skip
def test_the_reference_reaches_beyond_what_may_be_a_window(said, length):
    """Whatever it is called; not beyond what can be run at load, nor for numbers that are something else."""
    assert reference_length(config(**said)) == length <= LONGEST_RUN


@pytest.mark.parametrize(
    ("family", "name", "chunked"),
    [("mistral", "sliding_window", ()), ("gemma3", "sliding_window", ()), ("llama4", "attention_chunk_size", (0, 1))],
)
def test_a_long_window_is_read_off_the_masks(family, name, chunked, monkeypatch):
    """Longer than is run in full: the blocks are left out."""
    kind, options = FAMILIES[family]
    long = {**FAMILIES, family: (kind, {**options, name: 700, "max_position_embeddings": 1024})}
    monkeypatch.setattr("workbench.loading.toys.families.FAMILIES", long)
    sizes = wrap(random_model(family), None, name=family).sizes
    assert set(sizes.windows) == {700} and sizes.chunked == chunked
    assert sizes.sliding == ((0,) if family == "gemma3" else (0, 1))


def test_masks_are_read_where_blocks_give_tuples(monkeypatch):
    """The model takes the first entry of what a block gives: of a plain state that would be one row, then one token,
    then one number, and from six layers on there is nothing left to hand on."""
    kind, options = FAMILIES["gpt_neo"]
    long = {"gpt_neo": (kind, {**options, "window_size": 700, "max_position_embeddings": 1024})}
    monkeypatch.setattr("workbench.loading.toys.families.FAMILIES", long)
    made = wrap(random_model("gpt_neo", n_layers=6), None, name="gpt_neo")
    assert made.adapter.tuples == tuple(range(6))
    # its blocks are handed a mask of all, and hide more themselves: every layer passed for one that sees all
    assert made.sizes.sliding == (1, 3, 5) and made.sizes.windows == (700, 700, 700)
