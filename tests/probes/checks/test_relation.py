"""The answer without a caliper: calibrated where its model holds, and said not to hold where it does not."""

import numpy as np
import pytest

from probes.checks.relation import HOLDS, relation


def units(n: int, seed: int, slope: float = 1.5, noise: float = 0.8):
    """Effects whose scale is a power of the norm and a parabola of depth, with signs at random."""
    random = np.random.default_rng(seed)
    norms, layers = random.normal(0, 1.2, n), random.integers(0, 12, n)
    size = slope * norms + 0.2 * layers - 0.02 * layers**2 + noise * random.normal(size=n)
    return random.choice([-1.0, 1.0], n) * np.exp(size), norms, layers


def asked(effects, norms, layers, one: int, side: str = "changes"):
    rest = np.arange(len(effects)) != one
    return relation(float(effects[one]), effects[rest], norms[rest] - norms[one], layers[rest], int(layers[one]), side)


@pytest.mark.parametrize("side", ["changes", "lowers", "raises"])
def test_loud_and_quiet_units_are_called_equally_rarely(side):
    """P(p <= 0.1) in each third of norm within three standard errors; |effect| alone calls a fifth of the loud ones."""
    effects, norms, layers = units(240, 0)
    p = np.array([asked(effects, norms, layers, one, side).p for one in range(len(effects))])
    for third in np.array_split(np.argsort(norms), 3):
        assert (p[third] <= 0.1).mean() <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / len(third))
    loud = np.argsort(norms)[-80:]
    by_size = np.argsort(np.argsort(-np.abs(effects)))[loud] < 24
    assert by_size.mean() > 0.2


def test_the_model_is_found_and_an_outlier_stands_out_on_its_side():
    effects, norms, layers = units(150, 1)
    effects[7] = -30 * np.exp(1.5 * norms[7])
    found = asked(effects, norms, layers, 7, "lowers")
    assert found.slope == pytest.approx(1.5, abs=0.25) and found.test_p > HOLDS  # three standard errors of the slope
    assert found.beyond == 0 and found.p == pytest.approx(1 / 150)
    assert asked(effects, norms, layers, 7, "raises").p > 0.9
    assert np.isfinite(found.scale).all() and found.own_scale > 0


def bent(n: int, seed: int):
    """The log of the scale bends with log norm, and loud units are four times as noisy as quiet ones."""
    random = np.random.default_rng(seed)
    norms, layers = random.normal(0, 1.0, n), random.integers(0, 12, n)
    size = norms + 0.5 * norms**2 + 0.4 * np.exp(0.35 * norms) * random.normal(size=n)
    return np.exp(size), norms, layers


def test_a_bend_and_a_spread_that_goes_with_norm_are_modelled():
    """A line of even spread calls a quarter of the loudest third at 0.1 here, and is rejected."""
    effects, norms, layers = bent(240, 4)
    found = [asked(effects, norms, layers, one) for one in range(len(effects))]
    p = np.array([one.p for one in found])
    assert all(one.test_p > HOLDS for one in found)
    for third in np.array_split(np.argsort(norms), 3):
        assert (p[third] <= 0.1).mean() <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / len(third))
    slopes = np.array([one.slope for one in found])  # of the parabola, at each unit's own norm: 1 + 2 * 0.5 * norm
    assert np.polyfit(norms, slopes, 1) == pytest.approx([1.0, 1.0], abs=0.2)


def test_states_have_a_level_at_each_position():
    """The last position moves the prediction most: without a level of its own most of its states are called."""
    effects, norms, layers = units(240, 5)
    pos = np.arange(240) % 8
    effects = effects * np.where(pos == 7, np.exp(2.5), 1.0)
    rest = lambda values, one: np.delete(values, one)
    last = np.flatnonzero(pos == 7)

    def p_of(one: int, **where) -> float:
        beside = rest(effects, one), rest(norms, one) - norms[one], rest(layers, one), int(layers[one])
        return relation(float(effects[one]), *beside, "changes", **where).p

    apart = np.array([p_of(one, pos=rest(pos, one), own_pos=7) for one in last])
    assert (apart <= 0.1).mean() <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / len(last))
    assert np.mean([p_of(one) <= 0.1 for one in last]) > 0.4


@pytest.mark.parametrize("how", ["a wave", "unequal spread"])
def test_a_relation_of_another_shape_is_rejected(how):
    random = np.random.default_rng(2)
    norms, layers = random.normal(0, 1.5, 200), random.integers(0, 12, 200)
    noise = random.normal(size=200)
    middle = np.abs(norms) < 0.6
    size = 3 * np.sin(2 * norms) + 0.5 * noise if how == "a wave" else norms + noise * (0.1 + 2 * middle)
    found = asked(np.exp(size), norms, layers, 0)
    assert found.test_p < HOLDS


def test_units_without_an_effect_are_no_evidence_and_few_units_no_answer():
    effects, norms, layers = units(80, 3)
    effects[40:] = 0.0
    found = asked(effects, norms, layers, 0)
    assert np.isfinite(found.p) and found.beyond <= 40  # a zero is never as extreme
    assert np.isnan(asked(*units(19, 3), 0).p) and np.isfinite(asked(*units(20, 3), 0).p)
    effects[19:] = 0.0
    assert np.isnan(asked(effects, norms, layers, 0).p)
    effects, norms, layers = units(80, 3)
    norms[5] = np.nan  # a state at position 0
    assert np.isnan(asked(effects, norms, layers, 5).p)
