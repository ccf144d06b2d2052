"""Descriptions of our analyses, kept from one command to the next: to make one takes importing torch."""

from hashlib import sha256
from pathlib import Path

import apps
import probes
import workbench
from workbench import memo
from workbench.loading.bundled import cache_dir

__all__ = ["described"]

_OURS = f"{probes.__name__}."


def described(name: str, module: str) -> str:
    """The description of an analysis. module: where it lies; what others installed is always described anew."""
    place = cache_dir() / "descriptions" / f"{_sources(name)}.json"
    text = memo.read(place) if module.startswith(_OURS) else None
    if isinstance(text, str):
        return text
    from apps.cli.report.description import description
    from probes import CATALOG

    text = description(CATALOG.with_plugins().view(name))
    if module.startswith(_OURS):
        memo.write(place, text)
    return text


def _sources(name: str) -> str:
    """Of the name and of everything of ours that a description can come from: a changed word is another file."""
    digest = sha256(name.encode())
    for package in (workbench, probes, apps):
        root = Path(package.__path__[0])
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
