"""What stops a command: Ctrl+C; SIGTERM and its like (its terminal or its time ends) while there may be a result."""

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["STOPS", "Terminated", "stop_code", "terminable"]

_NAMES = ("SIGTERM", "SIGHUP", "SIGXCPU")  # the last two are not known everywhere


class Terminated(BaseException):
    """SIGTERM or its like while something runs that may have a partial result. number: the signal's."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__(number)
        self.number = number


STOPS = (KeyboardInterrupt, Terminated)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise on SIGTERM and its like inside, as Ctrl+C does, where this is the main thread: elsewhere no signal arrives.

    A signal that is ignored stays so: `nohup` is asked for to outlive a terminal.
    """

    def stop(number: int, frame: object) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {one: signal.getsignal(one) for one in known if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def stop_code(stop: BaseException) -> int:
    """128 and the signal's number, as shells count."""
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)
