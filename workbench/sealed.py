"""What was computed before and is kept: JSON with a checksum, written whole, or computed again.

A file that is missing, cut off, altered or of another form answers like none. Where nothing can be written, nothing is
kept, and nobody is troubled: what is kept here can always be made anew.
"""

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from workbench.errors import UnavailableError
from workbench.files import whole_file

__all__ = ["digest", "read", "write"]


def digest(what: Any) -> str:
    """sha256 over what JSON can hold, 64 hex digits; the order of keys does not matter."""
    return sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def read(place: Path) -> Any:
    """What was written at a place; None where it is not there whole."""
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        return record["kept"] if record["seal"] == digest(record["kept"]) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def write(place: Path, what: Any) -> None:
    """Keep what JSON can hold at a place, where it can be written."""
    text = json.dumps({"kept": what, "seal": digest(what)}, indent=2) + "\n"
    with suppress(UnavailableError), whole_file(place) as partial:
        partial.write_text(text, encoding="utf-8")
