"""Learners of one text: n-grams against counting by hand, Baum-Welch on texts whose rule is known."""

import numpy as np
import pytest
import torch

from probes import InContextAutomata
from probes.formation.findings.in_context_learners import baum_welch, n_gram
from workbench import load
from workbench.errors import InputError
from workbench.loading.toys.tasks.automata import Automata
from workbench.loading.toys.tasks.task import followers


def by_hand(row, pos, n, n_vocab):
    """What followed the last n tokens of row[: pos + 1] within it, else of fewer."""
    for k in range(n, 0, -1):
        last = row[pos + 1 - k : pos + 1] if pos + 1 >= k else None
        after = [row[j] for j in range(k, pos + 1) if last is not None and row[j - k : j] == last]
        if after:
            return [after.count(v) / len(after) for v in range(n_vocab)]
    counts = [row[: pos + 1].count(v) + 1 for v in range(n_vocab)]
    return [c / sum(counts) for c in counts]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_n_grams_count_what_followed_so_far(n):
    tokens = torch.randint(0, 3, (4, 20), generator=torch.Generator().manual_seed(n))
    found = n_gram(tokens, 3, n)
    for row in range(4):
        for pos in range(20):
            expected = torch.tensor(by_hand(tokens[row].tolist(), pos, n, 3))
            assert torch.allclose(found[row, pos], expected, atol=1e-6)


def test_followers_are_the_keys_behind_equal_n_grams():
    tokens = torch.tensor([[1, 2, 1, 2, 3, 1, 2]])
    assert followers(tokens, 1)[0, 6].nonzero()[:, 0].tolist() == [2, 4]  # behind the 2s of places 1 and 3
    assert followers(tokens, 2)[0, 6].nonzero()[:, 0].tolist() == [2, 4]
    assert followers(tokens, 3)[0, 6].nonzero()[:, 0].tolist() == []
    assert followers(tokens, 2)[0, 3].nonzero()[:, 0].tolist() == [2]
    last = Automata().keys("after-one-gram", Automata().evaluation(1)._replace(tokens=tokens))
    assert last[0].tolist() == [-1, -1, 1, 2, -1, 3, 4]


def test_baum_welch_finds_a_rule_and_keeps_to_frequencies_without_one():
    """A text that alternates (each symbol has a state of its own), and coin tosses of 0.8; 30 iterations."""
    alternating = np.tile([[0, 1]], (1, 20))[:, :39]
    found = baum_welch(alternating, 2, 2, iterations=60)
    assert found.shape == (1, 2) and found[0, 1] > 0.95 and found.sum() == pytest.approx(1)
    tosses = (np.random.default_rng(0).random((8, 200)) < 0.8).astype(int)
    assert abs(baum_welch(tosses, 2, 2)[:, 1].mean() - tosses.mean()) < 0.15


def test_conditions_that_are_not_there_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="n-gram-heads"):
        InContextAutomata(conditions="3-gram").run(load("toy:automata,length=24,d_model=16,step=0"))
