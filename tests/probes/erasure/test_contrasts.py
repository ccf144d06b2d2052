"""Excess drops: a draw of documents resamples everything that belongs to them, weights too."""

import numpy as np
import pytest

from probes.erasure.contrasts import Cells, cells_of, excess_drop, resampled


def tokens(n: int, documents: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    last = random.random(n) < 0.4
    return {
        "document": random.integers(0, documents, n), "last": last, "mid": (random.random(n) < 0.3) & ~last,
        "free": random.random(n) < 0.6, "frequency": random.integers(0, 3, n), "types": random.integers(0, 8, n),
    }  # fmt: skip


@pytest.mark.parametrize("times", [[1, 1, 1, 1], [2, 0, 1, 3], [0, 0, 5, 1]])
def test_a_draw_is_a_corpus_with_documents_repeated(times):
    """Written out: every document as often as it was drawn, and the accuracies of that corpus."""
    random = np.random.default_rng(4)
    counts = random.integers(1, 9, (4, 3)).astype(float)
    hits, weights = counts * random.random((2, 4, 3)), random.integers(0, 6, (4, 3)).astype(float)
    rows = np.repeat(np.arange(4), times)
    found = Cells(counts, hits, weights).accuracy(np.array([times], float))[0]
    np.testing.assert_allclose(found, Cells(counts[rows], hits[:, rows], weights[rows]).accuracy())


def test_the_interval_of_a_drop_is_that_of_drops_of_resampled_corpora():
    groups, random = tokens(600, 20, 0), np.random.default_rng(1)
    hits = random.random((2, 600)) < np.array([[0.8], [0.3]])
    draws = resampled(20, 60)
    found = excess_drop(cells_of(hits, **groups), 0, 1, draws)
    drops = []
    for times in draws.astype(int):
        picked = [np.flatnonzero(groups["document"] == d) for d, n in enumerate(times) for _ in range(n)]
        names = [np.full(len(one), rank) for rank, one in enumerate(picked)]
        rows = np.concatenate(picked)
        again = {key: values[rows] for key, values in groups.items()} | {"document": np.concatenate(names)}
        cells = cells_of(hits[:, rows], **again)
        at = {name: cells[name].accuracy() for name in ("last", "frequency-matched")}
        drops.append((at["last"][0] - at["last"][1]) - (at["frequency-matched"][0] - at["frequency-matched"][1]))
    tail = 0.01588  # of expanded percentiles at n = 20: Student's 2.09 times the root of 20 / 19
    expected = np.quantile(drops, [tail, 1 - tail])
    assert (found["low"][1], found["high"][1]) == pytest.approx(expected, abs=2e-3)
    fewer = excess_drop(cells_of(hits, **(groups | {"document": groups["document"] % 12})), 0, 1, resampled(12, 60))
    assert np.isnan(fewer["low"]).all()
