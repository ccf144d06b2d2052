"""What the address of a store means: a path or `file://` is a folder, anything else a place of an object store."""

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from workbench.batch.backing.backing import Backing
from workbench.batch.backing.folder import Folder
from workbench.batch.backing.objects import Objects
from workbench.batch.backing.secret import without_secrets
from workbench.errors import InputError, UnavailableError, in_words

__all__ = ["backing_of", "is_address"]

_LOCAL = ("file", "local")


def is_address(given: object) -> bool:
    """Whether a store is named that is no folder of this machine."""
    text = str(given)
    return "://" in text and text.partition("://")[0].lower() not in _LOCAL


def backing_of(given: str | Path) -> Backing:
    """Where a store lies. Raises InputError for what is neither a folder nor an address, UnavailableError where the
    driver of an address is not installed."""
    text = str(given)
    if "\0" in text:
        raise InputError("a folder with a NUL in it", "the path of a folder", "Correct it")
    if re.match(r"[A-Za-z][\w+.-]+:/(?!/)", text) and not Path(text).is_dir():  # a folder "s3:" would be made here
        raise InputError(f"{text}, an address that lost a slash", "two of them", "Give the address as a text, no Path")
    return _objects(text) if is_address(text) else Folder(_folder(text))


def _objects(address: str) -> Objects:
    """Raises as `backing_of`; nothing is asked of the store yet."""
    from fsspec.core import url_to_fs

    shown, protocol = without_secrets(address), address.partition("://")[0]
    if "::" in address:
        raise InputError(f"the store {shown}, an address in an address", "one address", "Correct it")
    address = address.rstrip("/")
    if not address.partition("://")[2].strip("/"):
        raise InputError(f"the store {shown}", "a bucket and a path, such as s3://bucket/runs/heads", "Correct it")
    try:
        system, root = url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise UnavailableError(
            f"the store {shown} without the library that reads {protocol}:// ({in_words(error)})",
            "one that fsspec uses",
            'Install it: pip install "interp-workbench[s3]" for s3://, or what fsspec names for others',
        ) from error  # fmt: skip
    except Exception as error:  # whatever a driver makes of an address
        raise InputError(
            f"the store {shown} ({without_secrets(in_words(error), address)})",
            "a folder, or an address that fsspec knows, such as s3://bucket/runs/heads", "Correct it",
        ) from error  # fmt: skip
    return Objects(system, str(root), address)


def _folder(given: str) -> Path:
    """The folder of a store, `file://` or a path. Raises InputError where none can be."""
    address = urlsplit(given) if "://" in given else None
    if address is not None and address.netloc not in ("", "localhost"):
        raise InputError(f"the store {given}, which is of another machine", "a path of this one", "Name the path there")
    folder = Path(given if address is None else url2pathname(address.path))
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            folder.stat()  # a name may be too long, or a circle of links
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
        is_folder = there.is_dir()
    except OSError as error:
        raise InputError(f"{folder} ({in_words(error)})", "the path of a folder", "Correct it") from error
    if not is_folder:
        raise InputError(f"{there}, which is no folder", "a place for the folder of a run", "Choose another")
    return folder
