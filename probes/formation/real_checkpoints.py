"""A series of real checkpoints: folders, GGUF files, or hub revisions, each a model of a batch, so that it resumes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from workbench.analysis.keys import digest
from workbench.analysis.run import Progress
from workbench.batch import runs
from workbench.errors import InputError
from workbench.files import at_home, cache_dir
from workbench.loading.pretrained import load
from workbench.models.model import Model

__all__ = ["Place", "along", "on_disk", "places", "state"]

_NUMBER = re.compile(r"(\d+)(?!.*\d)")


class Place(NamedTuple):
    """A checkpoint: its step, and what `load` takes. revision: of a name on the hub."""

    step: int
    name: str
    revision: str | None = None

    @property
    def label(self) -> str:
        """What a batch calls it."""
        return f"step {self.step}"


def places(text: str) -> list[Place]:
    """The checkpoints of a text, in the order of their numbers: `;` between them, `STEP=PLACE` or a place whose last
    part has a number in it; `NAME@REVISION` on the hub. InputError without a number, and for a step that comes twice.
    """
    found = [_place(part.strip()) for part in text.split(";") if part.strip()]
    found.sort(key=lambda place: place.step)
    for one, other in pairwise(found):
        if one.step == other.step:
            raise InputError(
                f"{one.name} and {other.name}, both of step {one.step}", "one checkpoint a step", "Say STEP=PLACE"
            )
    if len(found) < 2:
        raise InputError(f"the checkpoints {text!r}", "two or more, with ; between", "Name them")
    return found


def state(text: str) -> str:
    """A digest of the checkpoints of a text as they are: of files their sizes and times, of other names these; "" where
    there are none, or none that `places` reads."""
    series = _read(text)
    return digest([[place, _files(at_home(place.name))] for place in series]) if series else ""


def on_disk(text: str) -> bool:
    """Whether any checkpoint of a text is a file or a folder of this machine."""
    return any(_files(at_home(place.name)) for place in _read(text))


def _read(text: str) -> list[Place]:
    try:
        return places(text) if text.strip() else []
    except InputError:
        return []  # whoever runs them raises it


def _files(path: Path) -> list[Any]:
    """Name, size, times and number of each file of a checkpoint; nothing of what is no place on disk."""
    try:
        inside = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
        found = [(str(one), one.stat()) for one in inside]
    except (OSError, ValueError):  # whoever reads it says why it cannot be
        return []
    return [[name, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino] for name, at in found]


def _place(text: str) -> Place:
    said = re.fullmatch(r"(\d{1,12})=(.+)", text)
    place = said[2].strip() if said else text
    name, at, revision = place.rpartition("@") if not at_home(place).exists() else (place, "", "")
    name, revision = (name, revision) if at else (place, "")
    number = said[1] if said else None
    if number is None:
        inside = _NUMBER.search(revision or Path(place).name.removesuffix(".gguf"))
        if inside is None:
            raise InputError(f"the checkpoint {text!r}", "a number of its step in its name", f"Say it: 1000={text}")
        number = inside[1]
    return Place(int(number), name, revision or None)


class Series(Mapping[str, Model]):
    """Checkpoints by their labels, loaded when asked for; the last one is held. Each is held against the first.

    interventions: of every pass on each.
    """

    def __init__(self, series: Sequence[Place], interventions: Sequence[Any], network: bool):
        self._places = {place.label: place for place in series}
        self._interventions, self._network = interventions, network
        self._held: dict[str, Model] = {}
        self._first: tuple[str, tuple[Any, ...]] | None = None

    def __getitem__(self, label: str) -> Model:
        if label not in self._held:
            place = self._places[label]
            self._held.clear()
            model = load(place.name, revision=place.revision, allow_network=self._network)
            self._need_alike(label, model)
            self._held[label] = model.edited(self._interventions)
        return self._held[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _need_alike(self, label: str, model: Model) -> None:
        """InputError where a checkpoint is of another architecture, size or vocabulary than the first."""
        sizes = {f"{name} {value}" for name, value in vars(model.sizes).items()}
        vocabulary = None if model.tokenizer is None else digest(sorted(model.tokenizer.get_vocab().items()))
        mine = (model.made.architecture, sizes, vocabulary)
        if self._first is None:
            self._first = (label, mine)
        first, theirs = self._first
        if mine == theirs:
            return
        kinds = ("architectures", "sizes", "tokenizers")
        kind = next(kind for kind, a, b in zip(kinds, mine, theirs, strict=True) if a != b)
        differs = {"architectures": f" ({theirs[0]}, {mine[0]})", "tokenizers": ""}
        differs["sizes"] = f" ({', '.join(sorted(theirs[1] - mine[1]))}; {', '.join(sorted(mine[1] - theirs[1]))})"
        raise InputError(
            f"the checkpoints {first} and {label}, whose {kind} differ{differs[kind]}", "a series of one model",
            f"Take {label} out",
        )  # fmt: skip


def along(
    model: Model, series: Sequence[Place], analyses: Sequence[Any], network: bool, progress: Progress | None
) -> dict[int, dict[str, xr.Dataset]]:
    """Means of analyses by step and name: a batch in the user's cache, so that what is done is not done again.

    model: its interventions are those of every pass. What reads a prompt gets 16 sequences of tokens that repeat.
    Raises InputError where one is of another architecture, size or vocabulary than the first.
    """
    spec: dict[str, Any] = {
        "name": "timeline",
        "models": [{"name": place.name, "label": place.label, "step": place.step} for place in series],
        "analyses": [{"name": one.name, "params": one.values()} for one in analyses],
    }
    if any(one.reads_prompt() for one in analyses):
        spec["prompts"] = [{"group": "repeated", "generator": "repeated-tokens", "n": 16, "length": 32}]
    by_name = Named(analyses)
    folder = cache_dir() / "timelines" / digest([spec, [str(i) for i in model.interventions]])[:16]

    def tell(status: Any) -> None:
        if progress is not None and status.shards:
            progress(status.done / status.shards)

    done = runs.run(
        spec, folder, catalog=by_name, models=Series(series, model.interventions, network), progress=tell,
        allow_network=network, retry_failed=True,
    )  # fmt: skip
    if done.failures:
        first = done.failures[0]
        raise InputError(
            f"{first['analysis']} on the checkpoint {first['model']}, which failed ({first['why'].rstrip('.')})",
            "an analysis that runs on all", "Take it or the checkpoint out",
        )  # fmt: skip
    found: dict[int, dict[str, xr.Dataset]] = {place.step: {} for place in series}
    for one in analyses:
        whole = done.aggregate(one.name)
        for place in series:
            at = whole.sel(model=place.label, drop=True)
            found[place.step][one.name] = at.isel(group=0, drop=True) if "group" in at.dims else at
    return found


class Named:
    """The analyses of a batch by name, as its catalog."""

    def __init__(self, analyses: Sequence[Any]):
        self._kinds = {one.name: type(one) for one in analyses}

    def get(self, name: str) -> Any:
        """The class of that name."""
        return self._kinds[name]
