"""The engine over a Ray cluster: actors that take shards of a stored plan, as `batch worker` does.

Every actor holds a model and one shard at a time: nothing queues up before it, and what it computes goes into the
store, which all of them must see. Ray places actors on devices and starts one that died again; the shard it was at is
taken by whoever sees first that its lease was left (see `leases`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.arguments import hold_fields
from workbench.batch.engine import Progress, Status
from workbench.batch.leases import PATIENCE
from workbench.batch.state import state_of
from workbench.batch.store import Store
from workbench.errors import Cancelled, InputError, RefusedError, UnavailableError, WorkbenchError

__all__ = ["Cluster"]

_RETRIES = 3  # times that a dead actor is started again
_LOOK = 1.0  # seconds between two looks at the store

Worker = Callable[..., Status]


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster. address: of one to join, such as "auto" or "ray://host:10001"; None starts one on this machine.

    workers: actors; None: one a GPU where the cluster has some, else one a CPU. gpus: of an actor whose models need
    several (a spec's `device_map`). Raises InputError for none.
    """

    address: str | None = None
    workers: int | None = None
    gpus: int = 1

    def __post_init__(self) -> None:
        hold_fields(self)
        if self.workers is not None and not 1 <= self.workers <= 100_000:
            raise InputError(f"{self.workers} workers", "1 or more", "Correct it")
        if not 1 <= self.gpus <= 1_000:
            raise InputError(f"{self.gpus} GPUs of an actor", "1 or more", "Correct it")

    @staticmethod
    def need() -> None:
        """Raise UnavailableError without Ray, before a plan is made for it."""
        _ray()

    def work(
        self,
        worker: Worker,
        store: Store,
        *,
        progress: Progress | None = None,
        max_failures: int | None = None,
        allow_network: bool = False,
        patience: float = PATIENCE,
        **given: Any,
    ) -> Status:
        """Compute what the store's plan has left. worker: `runs.worker`, which every actor calls with what is given.

        Raises as `engine.work`; UnavailableError without Ray, where it cannot be reached, and where all actors died.
        """
        if store.backing.is_private:
            raise RefusedError(
                f"the store {store.title}, which only this process sees", "one that every actor sees",
                "Name a folder that all of them see, or an object store",
            )  # fmt: skip
        ray = _ray()
        is_ours = not ray.is_initialized()
        if is_ours:
            _start(ray, self.address)
        try:
            actors = self._actors(ray, worker)
            options = {"max_failures": max_failures, "allow_network": allow_network, "patience": patience, **given}
            place = str(store.folder.resolve()) if store.is_local else store.address
            tasks = [actor.work.remote(place, options) for actor in actors]
            return _followed(ray, tasks, store, progress)
        finally:
            if is_ours:
                ray.shutdown()

    def _actors(self, ray: Any, worker: Worker) -> list[Any]:
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        if self.gpus > max(1, gpus):  # Ray would wait for them without end
            raise RefusedError(
                f"{self.gpus} GPUs of an actor", f"at most {gpus}, which the cluster has", "Ask for fewer"
            )
        n = self.workers or gpus // self.gpus or max(1, cpus)
        options = {
            "num_cpus": 1,
            "num_gpus": self.gpus if gpus else 0,
            "max_restarts": _RETRIES,
            "max_task_retries": _RETRIES,
        }

        class Actor:
            """Takes shards until none is left."""

            def work(self, folder: str, options: dict[str, Any]) -> Status:
                """As `runs.worker`."""
                return worker(folder, **options)

        kind = ray.remote(**options)(Actor)
        return [kind.remote() for _ in range(n)]


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UnavailableError(
            "a cluster without Ray", "the library that runs it", "Install interp-workbench[cluster]"
        ) from error
    return ray


def _start(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or ["no reason"])[0]
        raise UnavailableError(
            f"no Ray cluster at {address or 'this machine'} ({first})", "one that can be reached", "Check the address"
        ) from error


def _followed(ray: Any, tasks: list[Any], store: Store, progress: Progress | None) -> Status:
    """Until every actor is done; one that died for good is left out, while others go on."""
    began, first, died = time.perf_counter(), state_of(store), ""
    while tasks:
        ended, tasks = ray.wait(tasks, timeout=_LOOK)
        for task in ended:
            try:
                ray.get(task)
            except ray.exceptions.RayActorError as error:
                died = (str(error).strip().splitlines() or ["no reason"])[0]
            except ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None)
                raise (cause if isinstance(cause, WorkbenchError | Cancelled) else error) from None
        status = _status(store, first.tokens, time.perf_counter() - began)
        if progress is not None:
            progress(status)
    if status.done < status.shards:
        raise UnavailableError(
            f"a cluster whose workers died ({died or 'no reason'})", "one that lasts",
            "Run again: what is finished is kept",
        )  # fmt: skip
    return status


def _status(store: Store, before: float, seconds: float) -> Status:
    """How far a run is, by finished shards. before: tokens that were done when it began."""
    state = state_of(store)
    left = (state.shards - state.done) * state.tokens / max(1, state.done)
    return Status(state.shards, state.done, state.tokens, left, seconds, state.tokens - before)
