"""Where an HDF5 file holds its texts, walked before the library does: on a damaged one it may walk for ever.

A global heap (HDF5 file format specification, III.E) is a header and then objects, each with its size. A size that
leads nowhere keeps HDF5 2.0 in one place without end, and no thread of Python can stop it.
"""

import re
import struct

from workbench.errors import InputError

__all__ = ["need_sound_heaps"]

_HEAP = re.compile(rb"GCOL\x01\0\0\0", re.DOTALL)  # signature, version 1, reserved
_HEADER, _OBJECT = 16, 16


def need_sound_heaps(content: bytes) -> int:
    """The bytes of the longest object in a file's heaps: no text of it is longer.

    Raises InputError where a heap does not come to its end.
    """
    longest = 0
    for found in _HEAP.finditer(content):
        start = found.start()
        (size,) = struct.unpack("<Q", content[start + 8 : start + _HEADER].ljust(8, b"\xff"))
        there = _longest(content, start + _HEADER, start + size)
        if there is None:
            raise InputError("a damaged file (a heap of texts without an end)", "a saved result", "Compute it again")
        longest = max(longest, there)
    return longest


def _longest(content: bytes, at: int, end: int) -> int | None:
    """The bytes of the longest object of a heap; None where it does not come to its end."""
    if end > len(content):
        return None
    longest = 0
    while end - at >= _OBJECT:  # a rest that has no room for an object is free
        index, _, size = struct.unpack_from("<HH4xQ", content, at)
        step = size if index == 0 else _OBJECT + -(-size // 8) * 8  # free space counts its own header
        if step < _OBJECT or step > end - at:
            return None
        longest = max(longest, size)
        at += step
    return longest
