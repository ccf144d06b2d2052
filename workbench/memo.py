"""What was computed before and is kept: JSON under a seal, written whole, or computed again.

A file that is missing, cut off, altered, of another form or of another name answers like none. Where nothing can be
written, nothing is kept, and nobody is troubled: what is kept here can always be made anew.
"""

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from workbench.errors import InputError, UnavailableError
from workbench.files import read_whole, sealed, unsealed, write_whole

__all__ = ["digest", "marked", "read", "unmarked", "write"]

_MOST = 1 << 20  # bytes; what is kept here has a few thousand
_MARK = "checksum"


def digest(what: Any) -> str:
    """sha256 over what JSON can hold, 64 hex digits; the order of keys does not matter."""
    return sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def marked(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the digest of itself, for JSON that other programs read too, which has no place for a seal."""
    bare = {name: value for name, value in record.items() if name != _MARK}
    return {**bare, _MARK: digest(bare)}


def unmarked(record: Any) -> dict[str, Any]:
    """A record without its mark. Raises ValueError for one that is not as it was marked, or is no record.

    One without a mark is of an earlier build. A fault in the name of the mark leaves the rest as it was.
    """
    if not isinstance(record, dict):
        raise ValueError("no record")
    bare = {name: value for name, value in record.items() if name != _MARK}
    if _MARK in record and record[_MARK] != digest(bare):
        raise ValueError("not as it was written")
    return bare


def read(place: Path) -> Any:
    """What was written at a place; None where it is not there whole."""
    try:
        content, whole = unsealed(read_whole(place, _MOST), place.name)
        return json.loads(content) if whole else None
    except (InputError, ValueError, RecursionError):
        return None


def write(place: Path, what: Any) -> None:
    """Keep what JSON can hold at a place, where it can be written."""
    with suppress(InputError, UnavailableError):
        write_whole(place, sealed(json.dumps(what, indent=2).encode(), place.name))
