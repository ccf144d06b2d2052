"""Over a Ray cluster: the numbers of a local run, whoever dies meanwhile."""

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from probes import CATALOG
from workbench import batch
from workbench.errors import InputError, RefusedError, UnavailableError

SPEC = {
    "name": "toy",
    "models": [{"name": "toy-induction"}],
    "prompts": [{"generator": "repeated-tokens", "n": 40, "length": length} for length in (5, 8)],
    "analyses": [{"name": "induction-on-prompt"}, {"name": "attention-sinks"}],
    "limits": {"shard_tokens": 120},
}


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnavailableError, match=r"cluster without Ray.*Install"):
        batch.run(SPEC, tmp_path, catalog=CATALOG, cluster=batch.Cluster())
    with pytest.raises(InputError, match="0 workers"):
        batch.Cluster(workers=0)
    with pytest.raises(InputError, match="0 GPUs"):
        batch.Cluster(gpus=0)


def test_what_a_cluster_has_not_is_not_waited_for():
    class Small:
        """What Ray says of a machine without GPUs."""

        @staticmethod
        def cluster_resources():
            return {"CPU": 2.0}

    with pytest.raises(RefusedError, match="2 GPUs of an actor; expected at most 0"):
        batch.Cluster(gpus=2)._actors(Small, None)


def same(found, whole):
    """Aggregates and rows of two runs are the same bits: every shard was computed on one thread, as here."""
    for name in whole.analyses:
        one, other = found.aggregate(name), whole.aggregate(name)
        assert one.identical(other.assign_attrs(provenance=one.attrs["provenance"]))
        rows, wanted = found.rows(name), whole.rows(name)
        for variable in wanted.data_vars:
            np.testing.assert_array_equal(rows[variable], wanted[variable])
    return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return batch.run(SPEC, tmp_path_factory.mktemp("whole"), catalog=CATALOG)


@pytest.mark.slow
def test_two_actors_equal_the_local_run(tmp_path, whole):
    pytest.importorskip("ray")
    told = []
    found = batch.run(SPEC, tmp_path / "ray", catalog=CATALOG, cluster=batch.Cluster(workers=2), progress=told.append)
    assert same(found, whole) and len(found.store.ledger()) == found.n_shards
    assert told[-1].done == found.n_shards and told[-1].share == 1.0


@pytest.mark.slow
def test_a_killed_actor_costs_its_shard_and_no_number(tmp_path, whole):
    pytest.importorskip("ray")
    folder, killed = tmp_path / "ray", []

    def kill():
        while not killed:
            for lease in (folder / "leases").glob("*.lease"):
                try:
                    killed.append(json.loads(lease.read_text())["pid"])
                except (OSError, ValueError):
                    continue
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.001)

    killer = threading.Thread(target=kill)
    killer.start()
    found = batch.run(SPEC, folder, catalog=CATALOG, cluster=batch.Cluster(workers=2))
    killer.join()
    assert killed and found.n_done == found.n_shards and same(found, whole)


@pytest.mark.slow
def test_a_refusal_of_an_actor_is_said_here(tmp_path):
    pytest.importorskip("ray")
    given = SPEC | {"models": [{"name": "toy-induction"}], "analyses": [{"name": "logit-lens"}]}
    made = batch.plan(given, tmp_path / "ray", catalog=CATALOG)
    made.write()
    made.store.cancel()
    from workbench.batch.runs import worker
    from workbench.errors import Cancelled

    with pytest.raises(Cancelled):
        batch.Cluster(workers=1).work(worker, made.store, catalog=CATALOG)
