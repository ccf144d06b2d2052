"""The scheduler of a batch on many workers, simulated: workers that take shards, some slow, some dying.

    python -m apps.batches.simulation runs/heads --workers 1000 --tokens 1e9

The rules are those of `workbench.batch.leases`: a free worker takes the next shard that nobody holds; one that dies
loses the shard it is at, which others take when its heartbeat has stopped for `patience` seconds; whoever started it
starts it again, and it loads its model anew. Shard times are drawn from those that a run has measured.
"""

import argparse
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.batch.leases import PATIENCE
from workbench.batch.runs import open_batch

__all__ = ["Conditions", "Outcome", "main", "simulated"]


@dataclass(frozen=True)
class Conditions:
    """Of a cluster. deaths: of a worker in an hour of work. slow: share of workers that take `slowness` times as long.

    load: seconds until a worker that starts has its model. patience: as of leases.
    """

    workers: int = 1000
    deaths: float = 0.0
    slow: float = 0.0
    slowness: float = 3.0
    load: float = 30.0
    patience: float = PATIENCE


@dataclass(frozen=True)
class Outcome:
    """Seconds from start to the last shard; of work that was lost with workers; deaths; share of all workers' time that
    went into shards that count."""

    seconds: float
    lost: float
    deaths: int
    used: float


def simulated(shards: Sequence[float], conditions: Conditions, seed: int = 0) -> Outcome:
    """Of shards with these times, in their order, on workers under some conditions."""
    c, random = conditions, np.random.default_rng(seed)
    pace = np.where(random.random(c.workers) < c.slow, c.slowness, 1.0)
    free = [(c.load, worker) for worker in range(c.workers)]  # when each takes its next shard
    left = [(0.0, number) for number in range(len(shards))]  # from when on each may be taken
    heapq.heapify(free)
    heapq.heapify(left)
    end = lost = done = 0.0
    deaths = 0
    while left:
        now, worker = heapq.heappop(free)
        ready, number = heapq.heappop(left)
        start = max(now, ready)
        took = shards[number] * pace[worker]
        lives = random.exponential(3600 / c.deaths) if c.deaths else np.inf
        if lives < took:
            deaths += 1
            lost += lives
            heapq.heappush(left, (start + lives + c.patience, number))
            heapq.heappush(free, (start + lives + c.load, worker))
            continue
        end = max(end, start + took)
        done += took
        heapq.heappush(free, (start + took, worker))
    return Outcome(float(end), float(lost), deaths, float(done / (c.workers * end)) if end else 1.0)


def main(words: Sequence[str] | None = None) -> None:
    """Print a table of conditions for the shard times of a run."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("run", help="the folder of a run")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--tokens", type=float, default=1e9, help="of the corpus")
    parser.add_argument("--speed", type=float, default=1.0, help="of a worker, in those of the one that was measured")
    given = parser.parse_args(words)
    entries = [entry for entry in open_batch(given.run).store.ledger() if entry.n_tokens]
    seconds = np.array([entry.seconds for entry in entries]) / given.speed
    tokens = float(np.mean([entry.n_tokens for entry in entries]))
    n = max(1, round(given.tokens / tokens))
    drawn = np.random.default_rng(0).choice(seconds, n)
    print(f"{n:,} shards of {tokens:,.0f} tokens, {seconds.mean():.0f} s each; {drawn.sum() / 3600:,.0f} hours of work")
    print("| deaths a worker and hour | slow | hours | hours of work lost | deaths | used |\n|---|---|---|---|---|---|")
    for deaths, slow in ((0, 0), (0, 0.05), (0.01, 0), (0.1, 0), (0.1, 0.05), (1, 0.05)):
        found = simulated(drawn, Conditions(given.workers, deaths, slow))
        print(
            f"| {deaths:g} | {slow:.0%} | {found.seconds / 3600:.2f} | {found.lost / 3600:.1f} | {found.deaths} | "
            f"{found.used:.0%} |"
        )


if __name__ == "__main__":
    main()
