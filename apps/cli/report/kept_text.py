"""Descriptions of our analyses, kept from one command to the next: to make one takes importing torch."""

import apps
import probes
import workbench
from workbench import memo, sources
from workbench.loading.bundled import cache_dir

__all__ = ["described"]

_OURS = f"{probes.__name__}."


def described(name: str, module: str) -> str:
    """The description of an analysis. module: where it lies; what others installed is always described anew."""
    # a changed word of anything of ours that a description can come from is another file
    place = cache_dir() / "descriptions" / f"{memo.digest([name, sources.digest_of((workbench, probes, apps))])}.json"
    text = memo.read(place) if module.startswith(_OURS) else None
    if isinstance(text, str):
        return text
    from apps.cli.startup import need_surroundings

    need_surroundings()
    from apps.cli.report.description import description
    from probes import CATALOG

    text = description(CATALOG.with_plugins().view(name))
    if module.startswith(_OURS):
        memo.write(place, text)
    return text
