"""Passes: which one is under way on a module, and what is set on its hook points for that one alone.

A hook sits on a module that everybody shares, so whoever calls the module meets it. Ours ask first whether the call is
of the thread and of the pass that set them, and do nothing in any other.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from workbench.errors import InputError
from workbench.forks import own_lock_after_fork
from workbench.pauses import pause

__all__ = ["Attached", "Passes", "giving_tuples", "repeated", "replaced", "skipped", "undisturbed"]

_BITS = 32


class Passes:
    """The passes under way on one module: one thread's at a time, the innermost last.

    lock: held while a pass runs; other threads wait for it.
    """

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self._under_way: list[object] = []
        self._is_around = False  # whether the lock was held already when the outermost began
        own_lock_after_fork(self)

    @contextmanager
    def run(self) -> Iterator[None]:
        """A pass of this thread. Another thread's waits; what an outer one of this thread has set rests meanwhile."""
        pause()
        is_around = self.is_mine
        with self.lock, undisturbed():
            if not self._under_way:
                self._is_around = is_around
            self._under_way.append(object())
            try:
                yield
            finally:
                self._under_way.pop()

    def forked(self) -> None:
        """In a process that was split off: passes of other threads are none of its own. One that was split off within a
        pass goes on with it."""
        if not self.is_mine:
            self.lock, self._under_way, self._is_around = threading.RLock(), [], False

    @property
    def is_mine(self) -> bool:
        """Whether this thread has a pass under way."""
        return self.lock._is_owned()  # what threading.Condition asks of an RLock; there is no public name for it

    @property
    def admits_another(self) -> bool:
        """Whether another pass of this thread meets nothing that is set: within a pass, which rests meanwhile, it meets
        nothing; with hooks that were set outside of any pass it does."""
        return not self.is_mine or (bool(self._under_way) and not self._is_around)

    def here(self) -> Callable[[], bool]:
        """A question for later: is this the thread and the pass of now? Outside any pass: is this the thread of now?

        Call it with the lock held.
        """
        thread, mine = threading.get_ident(), self._innermost()
        return lambda: threading.get_ident() == thread and (mine is None or self._innermost() is mine)

    def _innermost(self) -> object | None:
        return self._under_way[-1] if self._under_way else None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without what the caller has set for other work: `torch.autocast`, which would compute in fewer digits than a
    model's dtype says, and a default device, on which half of a pass would be made.

    Raises InputError for a default dtype of fewer digits than float32: it is the whole process's, so that it is not
    ours to change, and counts and shares would be rounded to it.
    """
    if torch.finfo(torch.get_default_dtype()).bits < _BITS:
        short = str(torch.get_default_dtype()).removeprefix("torch.")
        raise InputError(
            f"the default dtype {short}, to which shares would be rounded",
            "float32 or float64, whatever a model's own dtype",
            "Call torch.set_default_dtype(torch.float32) behind the loading that wants another",
        )
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


class Attached:
    """Functions on hook points of a model, for the pass under way alone; all are taken back at the end of the block.

    Enter it with the model's lock held.
    """

    def __init__(self, model: Any) -> None:
        self._adapter, self._here = model.adapter, model.passes.here()
        self._handles: list[tuple[Any, Any]] = []

    def add(self, point: Any, function: Callable[..., Any]) -> None:
        """Call `function(activation, hook)` when an activation comes by; what it returns goes on (None: the same)."""
        here = self._here

        def in_this_pass(activation: Any, hook: Any = None) -> Any:
            return function(activation, hook) if here() else None

        self._handles.append((point, point.add_hook(in_this_pass)))

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._adapter.remove(*self._handles.pop())


@contextmanager
def replaced(modules: Sequence[Any], by: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """While open, modules run what `by` makes of their `forward`."""
    before = [(module, module.__dict__.get("forward")) for module in modules]  # what an outer pass may have put there
    try:
        for module in modules:
            module.__dict__["forward"] = by(module.forward)  # assigned plainly a bridge's would stay
        yield
    finally:
        for module, forward in before:
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.__dict__["forward"] = forward


@contextmanager
def skipped(blocks: Sequence[Any], here: Callable[[], bool], tuples: Collection[int] = ()) -> Iterator[None]:
    """While open, blocks hand on their input where `here` says yes, and run as before where it says no.

    tuples: those among them that hand on a tuple whose first entry is the state (`giving_tuples`).
    """

    def handing_on(wrapped: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def by(forward: Callable[..., Any]) -> Callable[..., Any]:
            def hand_on(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
                if not here():
                    return forward(hidden_states, *args, **kwargs)
                return (hidden_states,) if wrapped else hidden_states

            return hand_on

        return by

    kinds = [[block for at, block in enumerate(blocks) if (at in tuples) is wrapped] for wrapped in (False, True)]
    with replaced(kinds[0], handing_on(False)), replaced(kinds[1], handing_on(True)):
        yield


def giving_tuples(blocks: Sequence[Any], run: Callable[[], Any]) -> tuple[int, ...]:
    """Which blocks give a tuple rather than the state alone (BLOOM, Falcon, GPT-J and others), by a pass.

    Whoever stands in for one of these must do so, too: the model takes the first entry of what it is given, which of a
    plain state is the first row of the batch.
    """
    found: set[int] = set()

    def look(at: int) -> Callable[..., None]:
        return lambda module, inputs, output: found.add(at) if isinstance(output, tuple) else None

    handles = [block.register_forward_hook(look(at)) for at, block in enumerate(blocks)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return tuple(sorted(found))


@contextmanager
def repeated(module: Any, times: int, here: Callable[[], bool]) -> Iterator[Callable[[], int]]:
    """While open, a module is called `times` in a row with the same input where `here` says yes; the last call counts.

    Gives a function that tells which of them is under way, from 0 on.
    """
    at = [0]

    def again_and_again(forward: Callable[..., Any]) -> Callable[..., Any]:
        def again(*args: Any, **kwargs: Any) -> Any:
            if not here():
                return forward(*args, **kwargs)
            for at[0] in range(times):
                found = forward(*args, **dict(kwargs))
            return found

        return again

    with replaced([module], again_and_again):
        yield lambda: at[0]
