"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workbench.errors import UnavailableError

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write to, which becomes the file at `path` at the end of the block.

    What is interrupted leaves no file that a later run would trust. Raises UnavailableError where nothing can be
    written; folders are made.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UnavailableError(
            f"{error.strerror or error} at {path}", "a place to write", "Choose another path"
        ) from error
    finally:
        with suppress(OSError):  # a folder that could not be made holds no half-written file
            partial.unlink()
