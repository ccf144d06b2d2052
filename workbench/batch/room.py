"""How much memory a run may take, and what the plan of its prompts takes of it: said before they are made."""

import os

from workbench.batch.spec import Limits, n_bytes
from workbench.errors import RefusedError

__all__ = ["as_text", "memory_of", "need_room_for"]

_EACH = 2000  # bytes of a prompt in a plan, beside its tokens: names, keys, what is found again
_TOKEN = 4


def memory_of(limits: Limits) -> int | None:
    """Bytes that a run may take: as its spec says, else what this machine has; None where it does not say."""
    if limits.memory is not None:
        return n_bytes(limits.memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def need_room_for(prompts: int, tokens: int, limits: Limits) -> None:
    """Raise RefusedError where so many prompts do not fit into memory even as a plan."""
    needs, has = prompts * _EACH + tokens * _TOKEN, memory_of(limits)
    if has is not None and needs > has:
        raise RefusedError(
            f"{prompts:,} prompts, whose plan alone takes about {as_text(needs)} of memory", f"at most {as_text(has)}",
            "Ask for fewer (n, limit, slots), or split them into several specs",
        )  # fmt: skip


def as_text(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
