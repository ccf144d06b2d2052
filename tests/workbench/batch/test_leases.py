"""Leases: one holder at a time, and a dead one is seen."""

import os
import subprocess
import sys

from workbench.batch.backing.folder import Folder
from workbench.batch.leases import Leases
from workbench.batch.store import Entry, Store


def test_one_holder_at_a_time(tmp_path):
    first, second = Leases(Folder(tmp_path)), Leases(Folder(tmp_path))
    held = first.take("a")
    assert held is not None and second.take("a") is None
    other = second.take("b")
    assert other is not None
    held.close()
    again = second.take("a")
    assert again is not None
    for lease in (other, again):
        lease.close()
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_holder_that_died_here_is_seen_at_once(tmp_path):
    code = "import os, sys; from workbench.batch.leases import Leases; from pathlib import Path\n"
    code += "from workbench.batch.backing.folder import Folder\n"
    code += "Leases(Folder(Path(sys.argv[1]))).take('a'); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / "leases" / "a.lease").exists()
    lease = Leases(Folder(tmp_path), patience=1e9).take("a")
    assert lease is not None
    lease.close()


def test_a_holder_elsewhere_is_believed_dead_when_its_heartbeat_stops(tmp_path):
    """By the watcher's own clock: the times of another machine say nothing."""
    path = tmp_path / "leases" / "a.lease"
    path.parent.mkdir()
    path.write_text('{"host": "elsewhere", "space": "x", "pid": 1, "started": "1", "nonce": "n"}')
    watcher = Leases(Folder(tmp_path), patience=0.05)
    os.utime(path, ns=(1, 1))  # 1970
    assert watcher.take("a") is None
    os.utime(path, ns=(2, 2))
    import time

    time.sleep(0.1)
    assert watcher.take("a") is None  # it has moved since
    time.sleep(0.1)
    lease = watcher.take("a")
    assert lease is not None
    lease.close()


def test_one_that_comes_back_does_not_take_the_new_holders_lease(tmp_path):
    first = Leases(Folder(tmp_path)).take("a")
    (tmp_path / "leases" / "a.lease").unlink()
    second = Leases(Folder(tmp_path)).take("a")
    first.close()
    assert (tmp_path / "leases" / "a.lease").exists()
    second.close()


ONE, TWO = "1" * 32, "2" * 32  # keys of shards


def entry(shard, sha256="0" * 64):
    return Entry(shard, sha256, {"norms": ["c"]}, {}, 1.0, 3)


def test_a_torn_line_swallows_no_other(tmp_path):
    store = Store(tmp_path)
    store.append(entry(ONE))
    with open(tmp_path / "ledger.jsonl", "ab") as file:
        file.write(b'{"shard": "torn", "sha2')
    store.append(entry(TWO))
    assert [e.shard for e in store.ledger()] == [ONE, TWO]


def test_one_believed_dead_that_wrote_other_bytes_is_no_corruption(tmp_path):
    import hashlib

    store = Store(tmp_path)
    (tmp_path / "shards").mkdir()
    for content in (b"first", b"second"):
        (tmp_path / f"shards/{ONE}.nc").write_bytes(content)
        store.append(entry(ONE, hashlib.sha256(content).hexdigest()))
    (tmp_path / f"shards/{ONE}.nc").write_bytes(b"first")
    assert set(store.finished()) == {ONE}
    (tmp_path / f"shards/{ONE}.nc").write_bytes(b"third")
    assert store.finished() == {}
