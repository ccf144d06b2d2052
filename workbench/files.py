"""Files that are there whole or not at all, and the folder of what we keep."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from workbench.errors import UnavailableError

__all__ = ["cache_dir", "whole_file"]


def cache_dir() -> Path:
    """Where we keep what we made: WORKBENCH_CACHE, else the platform's cache directory of the user."""
    chosen = os.environ.get("WORKBENCH_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("interp-workbench"))


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
