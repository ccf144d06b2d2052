"""A file of a stranger read in a process of its own first, which has little time and memory.

HDF5 is a large library in C: a crafted or damaged file may make it walk for ever, which no thread of Python can stop,
or crash it, and us. So another process reads every value once; what it came through, this one can read. That takes
about a quarter of a second, once for each content of a file.
"""

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import h5py

import workbench
from workbench import memo
from workbench.errors import InputError
from workbench.files import cache_dir
from workbench.storage.inspection import inspect, read_all, room_for

__all__ = ["looked_through", "vouched"]

_SECONDS = 20.0  # of the processor, and beside them what the values take
_RATE = 20e6  # bytes of values a second that slow machines read
_MEMORY = 1 << 30  # bytes of addresses beside the file, its values and what the libraries take themselves
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_REFUSED, _DAMAGED = 3, 4
_CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from workbench.storage.apart import child
sys.exit(child(float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
"""


def looked_through(content: bytes, *, groups: int = 0) -> None:
    """Raise InputError where a netCDF-4 file holds what no result has, or cannot be read with reasonable means.

    content: its bytes, whole; groups: as of `inspect`. What was read here before is known. Where no process can be
    started this one reads.
    """
    place = _place(content, groups)
    if memo.read(place) == "whole":
        return
    room = room_for(len(content))
    seconds = _SECONDS + room / _RATE
    root = str(Path(workbench.__file__).parents[1])
    command = [sys.executable, "-P", "-c", _CODE, root, str(seconds), str(_MEMORY + 2 * len(content) + room)]
    command.append(str(groups))
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, timeout=3 * seconds, check=False,
            env={**os.environ, **_ONE_THREAD},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _too_much(seconds) from None
    except OSError:  # no more processes, or no interpreter of our own to start
        return inspect(content, groups=groups)
    code = done.returncode
    if code == _REFUSED:
        raise InputError(*json.loads(done.stdout))
    if code == _DAMAGED:
        raise InputError("a damaged file, or none in netCDF-4", "a saved result", "Compute it again")
    if code in (1, 2):  # the interpreter's own: it did not come as far as the file
        return inspect(content, groups=groups)
    if code:  # killed by a limit, or crashed
        raise _too_much(seconds)
    vouched(content, groups=groups)


def vouched(content: bytes, *, groups: int = 0) -> None:
    """Keep that a file is known to be sound: who wrote it need not look through it."""
    memo.write(_place(content, groups), "whole")


def child(seconds: float, memory: int, groups: int) -> int:
    """Read a file from standard input within limits; 0 where it is sound, else its error's words on standard output."""
    _limit(seconds, memory)
    content = sys.stdin.buffer.read()
    try:
        inspect(content, groups=groups)
        read_all(content, groups=groups)
    except InputError as error:
        print(json.dumps([error.got, error.expected, error.remedy]))
        return _REFUSED
    except MemoryError:
        os.abort()  # as one that a limit killed
    except Exception as error:  # whatever HDF5 makes of bytes that anybody may have written
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return _DAMAGED
    return 0


def _limit(seconds: float, memory: int) -> None:
    if os.name != "posix":
        return
    import resource

    with suppress(OSError):  # threads of a library reserve more addresses on a larger machine
        memory += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def _place(content: bytes, groups: int) -> Path:
    made_by = f"{h5py.version.version} {h5py.version.hdf5_version} 2 {groups} "
    name = hashlib.sha256(made_by.encode() + hashlib.sha256(content).digest()).hexdigest()
    return cache_dir() / "digests" / f"read-{name}.json"


def _too_much(seconds: float) -> InputError:
    return InputError(
        "a damaged file, which cannot be read to its end", f"a saved result, read within {seconds:.0f} seconds",
        "Compute it again",
    )  # fmt: skip
