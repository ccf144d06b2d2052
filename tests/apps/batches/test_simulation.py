"""The simulated scheduler: what can be counted by hand, and what must not be lost."""

import numpy as np
import pytest

from apps.batches.simulation import Conditions, simulated


def test_equal_shards_on_equal_workers_take_their_number_of_rounds():
    found = simulated([10.0] * 25, Conditions(workers=10, load=5.0))
    assert (found.seconds, found.lost, found.deaths) == (5 + 3 * 10, 0, 0)
    assert found.used == pytest.approx(250 / (10 * 35))


def test_slow_workers_take_fewer_shards_and_the_last_one_is_waited_for():
    plain = simulated([10.0] * 1000, Conditions(workers=10, load=0.0))
    slow = simulated([10.0] * 1000, Conditions(workers=10, load=0.0, slow=1.0, slowness=2.0))
    some = simulated([10.0] * 1000, Conditions(workers=10, load=0.0, slow=0.5, slowness=4.0))
    assert slow.seconds == 2 * plain.seconds and plain.seconds < some.seconds < 4 * plain.seconds


def test_dead_workers_cost_what_they_were_at_and_every_shard_is_computed():
    shards = np.random.default_rng(1).uniform(50, 70, 2000).tolist()
    quiet = simulated(shards, Conditions(workers=50))
    deadly = simulated(shards, Conditions(workers=50, deaths=6.0))
    # a worker dies about once in ten shards of a minute: 6 an hour
    assert 0.05 * len(shards) < deadly.deaths < 0.2 * len(shards)
    assert 0 < deadly.lost < deadly.deaths * 70 and deadly.seconds > quiet.seconds and deadly.used < quiet.used


def test_more_workers_than_shards_end_with_the_longest():
    assert simulated([3.0, 9.0], Conditions(workers=1000, load=1.0)).seconds == 10.0
    assert simulated([], Conditions()).seconds == 0.0
