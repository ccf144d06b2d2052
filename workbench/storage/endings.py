"""The endings of names that a result can be saved under, without what writes them: asked before it is computed."""

from importlib.util import find_spec
from pathlib import Path

from workbench.errors import InputError

__all__ = ["ENDINGS", "PICTURES", "ending_of", "need_ending"]

# What each needs beside our own libraries.
ENDINGS = {"nc": "", "zarr": "zarr", "csv": "", "parquet": "pyarrow", "json": ""}
# Of figures: pictures are drawn by a browser that kaleido drives.
PICTURES = {"html": "", "json": "", "png": "kaleido", "svg": "kaleido", "pdf": "kaleido"}


def ending_of(path: str | Path) -> str:
    """The ending of a result's name, one of `ENDINGS`, in any case. Raises as `need_ending`."""
    return need_ending(path, ENDINGS)


def need_ending(path: str | Path, known: dict[str, str]) -> str:
    """The ending of a name in lower case. known: endings, and the library that each needs.

    Raises InputError for another one, or where that library is not installed.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in known:
        raise InputError(
            f"{path}, whose ending {f'.{ending}' if ending else '(none)'} is none that is known",
            f"one of {', '.join(f'.{name}' for name in known)}",
            "Name such a file",
        )
    if known[ending] and find_spec(known[ending]) is None:
        raise InputError(
            f"{path}, which needs the library {known[ending]}", "a format that can be written here",
            f"Install it (pip install {known[ending]}), or choose another ending",
        )  # fmt: skip
    return ending
