"""What a netCDF file holds, looked through before any value of it is touched.

HDF5 can do much that a result has no use for: a variable may lie in any other file of this machine (external storage,
virtual datasets), a link may lead out of the file or in a circle, a filter may load code, and a few bytes may stand for
gigabytes. Whatever a result of ours would not have is refused.
"""

import io
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from workbench.errors import InputError
from workbench.storage.heaps import need_sound_heaps

__all__ = ["MOST_BYTES", "inspect", "read_all", "room_for"]

MOST_BYTES = 2 << 30  # of a file, and of all values in it
_SPARSE = 256  # values may be this many times as large as the file: what is compressed holds repeats, not nothing
_ROOM = 64 << 20  # bytes of values that any file may have
_VARIABLES = 2_000
_MEMBERS = 1_000_000  # of a group of groups
_TEXTS = 1 << 20  # that any file may have in a variable; a larger one as many as it has places for:
_REFERENCE = 16  # bytes of the place that a text takes in a file beside itself
_AT_ONCE = 1 << 16  # texts
_ATTRIBUTES = 500
_ATTRIBUTE_VALUES = 4_096
_DIMS = 12
_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_PLUMBING = frozenset({"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"})  # by which netCDF ties dims to variables
_KINDS = "fiub"  # numbers; texts are told apart


def inspect(content: bytes, *, groups: int = 0) -> None:
    """Raise InputError where a netCDF-4 file holds what no result has. content: its bytes, whole.

    groups: how deep they may lie in each other; a result has none. Errors of HDF5 itself pass: the file is damaged
    then.
    """
    longest = need_sound_heaps(content)
    size, bound, total = len(content), room_for(len(content)), 0
    with h5py.File(io.BytesIO(content), "r") as file:
        for group in _groups(file, groups):
            if len(group) > (_MEMBERS if groups else _VARIABLES):
                raise _refused(f"{len(group)} variables", f"at most {_VARIABLES}")
            _look_at_attributes(group, "the file", size)
            total += sum(_bytes_of(variable, name, size, longest) for name, variable in _variables(group))
            if total > bound:
                raise _refused(f"{total:,} bytes of values in {size:,} of file", f"at most {bound:,}")


def room_for(file_bytes: int) -> int:
    """The bytes of values that a file of this size may have."""
    return max(min(MOST_BYTES, max(_ROOM, _SPARSE * file_bytes)), 2 * file_bytes)


def read_all(content: bytes, *, groups: int = 0) -> None:
    """Read every value and attribute of a file that was inspected, a part at a time. Errors of HDF5 pass."""
    with h5py.File(io.BytesIO(content), "r") as file:
        for group in _groups(file, groups):
            dict(group.attrs)
            for _, variable in _variables(group):
                dict(variable.attrs)
                for part in _parts(variable.shape, _TEXTS) if variable.ndim else ((),):
                    variable[part]


def _groups(file: h5py.File, depth: int) -> Iterator[h5py.Group]:
    """The file and the groups in it, to a depth; no links but plain ones, so nothing outside, and no group twice."""
    waiting, seen = [(file, 0)], {_place(file)}
    while waiting:
        group, level = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise _refused(f"a link {name!r} out of its place", "variables")
            kind = group.get(name, getclass=True)
            if kind is h5py.Group and level < depth and _place(group[name]) not in seen:
                seen.add(_place(group[name]))
                waiting.append((group[name], level + 1))
            elif kind is not h5py.Dataset:
                raise _refused(f"{name!r}, which is no variable", "variables")
        yield group


def _place(group: h5py.Group) -> int:
    """Where an object lies in its file, whatever its names."""
    return int(h5py.h5o.get_info(group.id).addr)


def _variables(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Those of one group, whose links were looked at."""
    return ((name, group[name]) for name in group if group.get(name, getclass=True) is h5py.Dataset)


def _bytes_of(variable: h5py.Dataset, name: str, file_bytes: int, longest: int) -> int:
    """The bytes of a variable's values in memory, which are those of numbers or texts and lie in the file."""
    layout = variable.id.get_create_plist()
    if layout.get_external_count() or variable.is_virtual:
        raise _refused(f"{name!r} with values in another file", "values in the file itself")
    filters = {layout.get_filter(index)[0] for index in range(layout.get_nfilters())}
    if not filters <= _FILTERS:
        raise _refused(f"{name!r} with a filter of another kind", "none, or deflate")
    if variable.shape is None or variable.ndim > _DIMS:
        raise _refused(f"{name!r} of another shape", f"at most {_DIMS} dims")
    _look_at_attributes(variable, name, file_bytes)
    if _is_text(variable.dtype):
        return _bytes_of_texts(variable, name, file_bytes, longest)
    if variable.dtype.kind not in _KINDS or variable.dtype.subdtype or variable.dtype.itemsize > 8:
        raise _refused(f"{name!r} of the kind {variable.dtype}", "numbers or texts")
    return variable.size * variable.dtype.itemsize


def _is_text(dtype: np.dtype) -> bool:
    return h5py.check_string_dtype(dtype) is not None


def _bytes_of_texts(variable: h5py.Dataset, name: str, file_bytes: int, longest: int) -> int:
    """The bytes of a variable's texts, read in parts: each may be as long as the longest, and all may be the same."""
    count = variable.size
    length = h5py.check_string_dtype(variable.dtype).length
    if length is not None:
        return count * length * 4
    bound = min(MOST_BYTES, max(_ROOM, 4 * file_bytes))
    most = max(_TEXTS, file_bytes // _REFERENCE)
    if count > most:
        raise _refused(f"{count:,} texts in {name!r}", f"at most {most:,}")
    if not variable.ndim:
        return len(variable[()])
    total, step = 0, max(1, min(_AT_ONCE, bound // max(1, longest)))
    for part in _parts(variable.shape, step):
        total += sum(map(len, np.ravel(variable[part])))
        if total > bound:
            raise _refused(f"texts of over {bound:,} bytes in {name!r}", "less")
    return total


def _parts(shape: tuple[int, ...], most: int) -> Iterator[tuple[Any, ...]]:
    """Slices that cover an array, of at most so many elements each."""
    inner = int(np.prod(shape[1:], dtype=np.int64))
    if inner > most and len(shape) > 1:
        for index in range(shape[0]):
            yield from ((index, *rest) for rest in _parts(shape[1:], most))
        return
    step = max(1, most // max(1, inner))
    yield from ((slice(start, start + step),) for start in range(0, shape[0], step))


def _look_at_attributes(owner: Any, name: str, file_bytes: int) -> None:
    """Attributes are numbers and texts, few and short; what ties dims to variables is the library's own."""
    if len(owner.attrs) > _ATTRIBUTES:
        raise _refused(f"{len(owner.attrs)} attributes of {name}", f"at most {_ATTRIBUTES}")
    for key in owner.attrs:
        found = owner.attrs.get_id(key)
        count = int(np.prod(found.shape or (), dtype=np.int64))
        if count > _ATTRIBUTE_VALUES:
            raise _refused(f"an attribute {key!r} of {count:,} values", f"at most {_ATTRIBUTE_VALUES:,}")
        if key in _PLUMBING:
            continue
        if not _is_text(found.dtype) and found.dtype.kind not in _KINDS:
            raise _refused(f"an attribute {key!r} of the kind {found.dtype}", "numbers or texts")
        if _is_text(found.dtype) and count * file_bytes > 1 << 30 and count > 1:
            raise _refused(f"an attribute {key!r} of {count:,} texts", "fewer")


def _refused(got: str, expected: str) -> InputError:
    return InputError(got, f"{expected}, as in a result", "Do not open this file unless you know who made it")
