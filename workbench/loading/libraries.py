"""The libraries that models are made with, imported by one thread after another.

transformers makes its names when they are asked for first. Two threads that ask at once, such as two models that are
loaded beside each other, got half of it: `cannot import name 'AutoTokenizer'`, of a model that is whole.
"""

import threading
from importlib import import_module

from workbench.forks import own_lock_after_fork

__all__ = ["need_libraries"]

_USED = {
    "transformers": ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer", "PreTrainedTokenizerFast"),
    "transformer_lens.hook_points": ("HookPoint",),
    "transformer_lens.model_bridge.sources._bridge_builder": ("build_bridge_from_module",),
}


class _Libraries:
    def __init__(self) -> None:
        self.are_here, self._lock = False, threading.Lock()
        own_lock_after_fork(self)

    def forked(self) -> None:
        self._lock = threading.Lock()

    def need(self) -> None:
        if self.are_here:
            return
        with self._lock:
            for module, names in _USED.items():
                for name in names:
                    getattr(import_module(module), name)
            self.are_here = True


_LIBRARIES = _Libraries()


def need_libraries() -> None:
    """Import what loading a model needs, unless it is there; other threads wait until it is."""
    _LIBRARIES.need()
