"""How far a run is, cheaply: from the ledger and the leases, without a look into any shard."""

from dataclasses import dataclass, replace

from workbench.batch.leases import held
from workbench.batch.store import Store

__all__ = ["State", "sign", "state_of", "with_workers"]


@dataclass(frozen=True)
class State:
    """Of a run. workers: who hold a shard now. failed: cells that failed and came out nowhere yet, and refused rows.

    seconds: of a shard so far, on average; 0 before the first. tokens: of finished shards. wants_stop: whether somebody
    asked it to stop.
    """

    shards: int
    done: int
    failed: int
    workers: int
    seconds: float
    tokens: float
    wants_stop: bool

    @property
    def share(self) -> float:
        """Of the shards, 0 to 1."""
        return self.done / self.shards if self.shards else 1.0

    @property
    def time_left(self) -> float | None:
        """Seconds, None where nobody works at it or nothing is known."""
        if not self.workers or not self.seconds:
            return None
        return (self.shards - self.done) * self.seconds / self.workers


def state_of(store: Store) -> State:
    """How far a run is. A shard counts by its line in the ledger and its file; whoever reads it checks its bytes."""
    record = store.plan()
    keys = set(record["shards"])
    there = keys & store.written()
    entries = {e.shard: e for e in store.ledger() if e.shard in there}
    came_out = {c for e in entries.values() for cells in e.cells.values() for c in cells if c not in e.failed}
    failed = {cell for e in entries.values() for cell in e.failed} - came_out
    seconds = sum(e.seconds for e in entries.values()) / len(entries) if entries else 0.0
    n_failed = len(failed) + len(record["refused"])
    tokens = float(sum(max(1, e.n_tokens) for e in entries.values()))
    return with_workers(State(len(keys), len(entries), n_failed, 0, seconds, tokens, False), store)


def with_workers(state: State, store: Store) -> State:
    """The same with who is at it now, which changes without a line in the ledger."""
    return replace(state, workers=held(store.backing), wants_stop=store.cancelled)


def sign(store: Store) -> str:
    """Changes with whatever is planned or finished."""
    return store.sign()
