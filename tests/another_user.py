"""Another user of this machine, for what is shared and not for everybody."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_another_user(*private: Path) -> Iterator[None]:
    """Within, nobody may read or enter what is private. No mode keeps root out: it becomes another user meanwhile.

    Whatever is imported within must have been before.
    """
    modes = {path: path.stat().st_mode & 0o777 for path in private}
    for path in private:
        path.chmod(0)
    is_root = os.getuid() == 0
    if is_root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
        for path, mode in modes.items():
            path.chmod(mode)
