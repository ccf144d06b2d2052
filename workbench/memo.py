"""What was computed before and is kept: JSON under a seal, written whole, or computed again.

A file that is missing, cut off, altered or of another form answers like none. Where nothing can be written, nothing is
kept, and nobody is troubled: what is kept here can always be made anew.
"""

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from workbench.errors import InputError, UnavailableError
from workbench.files import read_whole, sealed, unsealed, write_whole

__all__ = ["digest", "read", "write"]

_MOST = 1 << 20  # bytes; what is kept here has a few thousand


def digest(what: Any) -> str:
    """sha256 over what JSON can hold, 64 hex digits; the order of keys does not matter."""
    return sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def read(place: Path) -> Any:
    """What was written at a place; None where it is not there whole."""
    try:
        content, whole = unsealed(read_whole(place, _MOST))
        return json.loads(content) if whole else None
    except (InputError, ValueError, RecursionError):
        return None


def write(place: Path, what: Any) -> None:
    """Keep what JSON can hold at a place, where it can be written."""
    with suppress(InputError, UnavailableError):
        write_whole(place, sealed(json.dumps(what, indent=2).encode()))
