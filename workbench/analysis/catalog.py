"""The catalog: analyses and their views by name, imported when they are looked at, so that listing them costs nothing.

    Catalog({"logit-lens": "probes.lens.logit_lens:LogitLens"})

A path names an analysis; its view is `VIEW` of the same module, or a second path behind a space names it.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from workbench.arguments import argument
from workbench.errors import InputError, UnavailableError

__all__ = ["Catalog"]


class Catalog(Sequence[Any]):
    """Analyses by name. As a sequence, their classes: `run(model, prompt, CATALOG)`."""

    def __init__(self, paths: Mapping[str, str]):
        self._paths = dict(paths)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the page, without importing anything."""
        return tuple(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        """By its place in the order, or by its name as `get` does; a tuple of a slice."""
        if isinstance(index, str):
            return self.get(index)
        names = self.names[index]
        return tuple(self.get(n) for n in names) if isinstance(index, slice) else self.get(names)

    def __iter__(self) -> Iterator[Any]:
        return (self.get(name) for name in self._paths)

    def get(self, name: str) -> Any:
        """The class of the analysis of that name; InputError with the nearest names."""
        found = _imported(self._paths_of(name)[0])
        return found if isinstance(found, type) else found.analysis

    def view(self, name: str) -> Any:
        """The view of the analysis of that name; InputError with the nearest names."""
        analysis, view = self._paths_of(name)
        found = _imported(view or analysis)
        if not isinstance(found, type):
            return found
        return import_module(analysis.partition(":")[0]).VIEW

    @property
    def views(self) -> tuple[Any, ...]:
        """All views, in the order of the page."""
        return tuple(self.view(name) for name in self._paths)

    def class_name(self, name: str) -> str:
        """The name of the class of an analysis, without importing it."""
        return self._paths_of(name)[0].partition(":")[2]

    def module(self, name: str) -> str:
        """The module of the analysis of that name, without importing it; InputError with the nearest names."""
        return self._paths_of(name)[0].partition(":")[0]

    def _paths_of(self, name: str) -> tuple[str, str]:
        if argument("name", name, str, "the catalog") not in self._paths:
            near = get_close_matches(name, self._paths, n=3, cutoff=0.4) or list(self._paths)
            raise InputError(f"the analysis {name!r}", f"one of {', '.join(near)}", "See `workbench list`")
        analysis, _, view = self._paths[name].partition(" ")
        return analysis, view

    def with_plugins(self, group: str = "workbench.probes") -> "Catalog":
        """This catalog and what installed packages offer under an entry-point group: an analysis or its view."""
        paths = dict(self._paths)
        for point in entry_points(group=group):
            path = point.value.partition("[")[0].strip()  # behind it may stand extras of the package
            if paths.setdefault(point.name, path) != path or point.name in self._paths:
                raise UnavailableError(
                    f"an installed probe named {point.name}",
                    "a name that is not taken",
                    "Uninstall or rename that probe",
                )
        return Catalog(paths)


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
