"""What stops a command: Ctrl+C, and SIGTERM while something runs that may have a partial result."""

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["STOPS", "Terminated", "stop_code", "terminable"]


class Terminated(BaseException):
    """SIGTERM while something runs that may have a partial result."""


STOPS = (KeyboardInterrupt, Terminated)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise on SIGTERM inside, as Ctrl+C does, where this is the main thread: elsewhere no signal arrives."""

    def stop(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stop_code(stop: BaseException) -> int:
    """128 and the signal's number, as shells count."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
