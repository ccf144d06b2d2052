"""The spec of a batch: a TOML file that says which prompts, models and analyses, and what to keep.

Checked before anything is loaded; what is wrong is said with its file and line. What needs a model (columns of a file,
lengths, units of interventions) is said by `plan`.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from workbench.errors import InputError, UnavailableError
from workbench.files import read_whole

__all__ = [
    "MOST_BYTES",
    "SOURCES",
    "AnalysisSpec",
    "Keep",
    "Limits",
    "ModelSpec",
    "PromptSource",
    "Read",
    "Spec",
    "Where",
    "read_spec",
    "spec_of",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w .+-]{0,99}$")]  # a file's name too
Group = Annotated[str, Field(pattern=r"^\w[\w .+-]{0,99}$")]
Count = Annotated[int, Field(ge=1, le=10**9)]
MOST_BYTES = 1 << 26  # of a spec; prompts are in files of their own
_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")  # of a device_map
SOURCES = ("texts", "ids", "file", "corpus", "generator", "template")
_READ_BY = {  # what a source does not read is refused: it would be passed over without a word
    **dict.fromkeys(("column", "document", "encoding", "format"), ("file",)),
    **dict.fromkeys(("slots", "columns"), ("template",)),
    **dict.fromkeys(("n", "length"), ("generator",)),
    "bos": ("texts", "file", "corpus", "template"),
}


def n_bytes(text: str | None) -> int | None:
    """Bytes of "8 GB", "512 MB"; None for None."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kMGT]?)B?\s*", text)
    size = 0 if found is None else int(float(found[1]) * 1000 ** " kMGT".index(found[2] or " "))
    if size == 0:  # which would be no bound
        raise ValueError(f'a size such as "8 GB", not {text!r:.80}')
    return size


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSpec(_Part):
    """A model: a name or a folder as `load()` takes it.

    label: what results call it, its name unless given. step: of training, for a series of checkpoints. device_map: in
    place of device, of a model that is larger than one: "auto", or devices by modules. No result's key knows of it.
    """

    name: str | None = None
    folder: str | None = None
    label: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    device: str = "auto"
    device_map: Any = None
    step: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.name is None) == (self.folder is None):
            raise ValueError("one of name, folder")
        if self.device_map is not None and self.device != "auto":
            raise ValueError("one of device, device_map")
        return self

    @field_validator("device_map", mode="before")
    @classmethod
    def _map(cls, given: Any) -> Any:
        is_table = isinstance(given, dict) and all(isinstance(module, str) for module in given)
        if is_table and given and all(isinstance(where, str) or _is_number(where) for where in given.values()):
            return given
        if given is None or (isinstance(given, str) and given in _STRATEGIES):
            return given
        raise ValueError(f"one of {', '.join(_STRATEGIES)}, or a table of modules and devices, such as {{ '' = 0 }}")

    @property
    def title(self) -> str:
        """What results call it."""
        return self.label or self.name or str(self.folder)


class PromptSource(_Part):
    """Prompts of one group, from one of: texts, ids, file (.txt, .jsonl, .json, .csv, .tsv, .parquet), corpus ("prose",
    "code", a file or folder, hub:NAME), generator ("repeated-tokens", "random-tokens"), template with slots.

    column: which one of a file holds the prompt, by default the first of "prompt", "text", "messages" and "ids";
    document: which one says what it was taken from, so that intervals take what belongs together as one. encoding,
    format: of the file, where it is not UTF-8 or its ending does not say it. tokens: the most that are taken of a text,
    the tokens put in front (BOS) among them; long: what becomes of a longer one: its beginning ("cut"), pieces of one
    document ("split"), or it is recorded as refused. columns: further texts of a row that analyses read, written with
    the slots of a template.
    """

    group: Group = "prompts"
    texts: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    ids: Annotated[tuple[Annotated[tuple[int, ...], Field(strict=False)], ...], Field(strict=False)] | None = None
    file: str | None = None
    corpus: str | None = None
    generator: Literal["repeated-tokens", "random-tokens"] | None = None
    template: str | None = None
    column: str | None = None
    document: str | None = None
    encoding: str = "utf-8"
    format: Literal["text", "jsonl", "json", "csv", "tsv", "parquet"] | None = None
    slots: dict[str, Annotated[tuple[str, ...], Field(strict=False, min_length=1)]] = {}
    columns: dict[str, str] = {}
    n: Count = 100
    length: Annotated[int, Field(ge=2, le=10**6)] = 32
    tokens: Annotated[int, Field(ge=2, le=10**7)] | None = None
    long: Literal["cut", "split", "refuse"] = "cut"
    limit: Count | None = None
    bos: bool | None = None

    @model_validator(mode="after")
    def _one(self, info: ValidationInfo) -> Self:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"one of {', '.join(SOURCES)}")
        if self.template is not None and not self.slots:
            raise ValueError("slots for the template")
        is_written = bool(info.context and info.context.get("written"))  # by somebody: a plan holds every default
        for name, readers in _READ_BY.items():
            is_usual = getattr(self, name) == type(self).model_fields[name].default
            is_given = name in self.model_fields_set if is_written else not is_usual
            if given[0] not in readers and is_given:
                more = "; limit says how many are taken" if name == "n" else ""
                raise ValueError(f"{name} beside {' or '.join(readers)}, and not beside {given[0]}{more}")
        return self


class AnalysisSpec(_Part):
    """An analysis of the catalog with its parameters.

    columns: parameters that each prompt has its own value of, and the column that holds it. positions: what stands for
    a prompt where a variable has an axis of positions: its mean over them, its last one, or nothing.
    """

    name: Name
    params: dict[str, Any] = {}
    columns: dict[str, str] = {}
    positions: Literal["none", "mean", "last"] = "none"

    @model_validator(mode="after")
    def _once(self) -> Self:
        twice = next((name for name in self.columns if name in self.params), None)
        if twice is not None:  # the column's value won, and what was given for all was passed over
            raise ValueError(f"{twice} in params or in columns, not in both")
        return self


class Keep(_Part):
    """What is kept beside aggregates and the values of each prompt: results, whole, of every prompt."""

    results: bool = False


class Limits(_Part):
    """memory, disk: what may be taken, such as "8 GB"; none: what the machine has. batch_tokens: in one pass.
    shard_tokens: about how many are computed before they are written. max_failures: after how many the run stops."""

    memory: str | None = None
    disk: str | None = None
    batch_tokens: Annotated[int, Field(ge=1, le=10**7)] = 2048
    shard_tokens: Annotated[int, Field(ge=1, le=10**9)] = 16384
    max_failures: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        for text in (self.memory, self.disk):
            n_bytes(text)
        return self


class Spec(_Part):
    """A batch: models times prompts times analyses, under interventions written as on the page ("L18H6 mean")."""

    name: Name
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    models: Annotated[tuple[ModelSpec, ...], Field(strict=False, min_length=1)]
    prompts: Annotated[tuple[PromptSource, ...], Field(strict=False)] = ()
    analyses: Annotated[tuple[AnalysisSpec, ...], Field(strict=False, min_length=1)]
    interventions: Annotated[tuple[str, ...], Field(strict=False)] = ()
    keep: Keep = Keep()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _once(self) -> Self:
        for what, names in (("model", [m.title for m in self.models]), ("analysis", [a.name for a in self.analyses])):
            twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
            if twice is not None:
                raise ValueError(f"each {what} once, and {twice!r} is there twice")
        return self


@dataclass(frozen=True)
class Where:
    """The file that a spec was read from, to say where in it something does not fit; empty for a spec from Python."""

    path: str = ""
    text: str = field(default="", repr=False)

    @contextmanager
    def of(self, *loc: str | int) -> Iterator[None]:
        """Errors inside name the file and the line of a place such as ("analyses", 1, "name")."""
        try:
            yield
        except (InputError, UnavailableError) as error:
            line = line_of(self.text, loc) if self.path else None
            if line is None or f"{self.path}, line" in error.got:
                raise
            raise type(error)(f"{error.got} in {self.path}, line {line}", error.expected, error.remedy) from error


class Read(NamedTuple):
    """A spec, the folder that its paths are relative to, and where it stands."""

    spec: Spec
    folder: Path
    where: Where


def read_spec(source: "str | Path | Mapping[str, Any] | Spec") -> Read:
    """A spec from a TOML file, or from what such a file holds.

    Raises InputError with the file, the line, what was got and what was expected.
    """
    if isinstance(source, Spec):
        return Read(source, Path.cwd(), Where())
    if isinstance(source, Mapping):
        return Read(_checked(dict(source), "the spec", ""), Path.cwd(), Where())
    path = Path(source)
    try:
        content = read_whole(path, MOST_BYTES)
    except InputError as error:
        raise InputError(f"no spec at {path} ({error.got})", "a TOML file", "Check the path") from error
    spec, text = spec_of(content, str(path))
    return Read(spec, path.resolve().parent, Where(str(path), text))


def spec_of(content: bytes, path: str) -> tuple[Spec, str]:
    """A spec from the bytes of a TOML file, and its text. Raises as `read_spec`."""
    try:
        text = content.decode("utf-8-sig")
        given = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, which is not UTF-8 ({error.reason})", "a TOML file", "Convert it") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}, which is not TOML ({error})", "a TOML file", "Correct that line") from error
    except RecursionError as error:
        raise InputError(f"{path}, which is nested too deeply", "a TOML file", "Correct it") from error
    except ValueError as error:  # a number of too many digits
        raise InputError(f"{path}, which is not TOML ({error})", "a TOML file", "Correct it") from error
    return _checked(given, path, text), text


def _checked(given: Mapping[str, Any], where: str, text: str) -> Spec:
    """text: of the file; empty for a mapping, which may hold every default."""
    try:
        return Spec.model_validate(given, context={"written": bool(text)})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise _refused(first, where, text) from None


def _refused(first: Any, where: str, text: str) -> InputError:
    loc = [part for part in first["loc"] if isinstance(part, int) or not str(part).startswith(("tuple", "function"))]
    line = line_of(text, loc)
    place = f"{where}, line {line}" if line else where
    name = _dotted(loc)
    if first["type"] == "extra_forbidden":
        known = _known(loc)
        near = get_close_matches(str(loc[-1]), known, n=3) or known
        return InputError(f"{name} in {place}", f"one of {', '.join(near)}", "Correct the name")
    if first["type"] == "missing":
        return InputError(f"no {name} in {place}", "one", "Write it there")
    message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "string_pattern_mismatch":
        of = "" if name.endswith("group") else " of A to Z"
        message = f"a name of at most 100 letters, digits, spaces and _.+-, the first a letter{of} or a digit"
    got = "" if isinstance(first["input"], dict | BaseModel) else f" = {first['input']!r:.80}"
    return InputError(f"{name or 'a spec'}{got} in {place}", message[0].lower() + message[1:], "Correct it")


def _dotted(loc: Sequence[Any]) -> str:
    """models[0].name"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _known(loc: Sequence[Any]) -> list[str]:
    """The names that may stand where an unknown one was found."""
    parts: dict[str, type[_Part]] = {
        "models": ModelSpec,
        "prompts": PromptSource,
        "analyses": AnalysisSpec,
        "keep": Keep,
        "limits": Limits,
    }
    owner: type[_Part] = parts.get(str(loc[0]), Spec) if len(loc) > 1 else Spec
    return list(owner.model_fields)


def line_of(text: str, loc: Sequence[Any]) -> int | None:
    """The line of a TOML file that a place such as ("models", 1, "name") stands in, as near as it can be told."""
    lines = text.splitlines()
    start = 0
    if len(loc) > 1 and isinstance(loc[0], str):
        table = re.compile(rf"\s*\[\[?\s*{re.escape(loc[0])}\b")
        heads = [i for i, line in enumerate(lines) if table.match(line)]
        which = loc[1] if isinstance(loc[1], int) else 0
        if which >= len(heads):
            return next((i + 1 for i, line in enumerate(lines) if re.match(rf"\s*{re.escape(loc[0])}\b", line)), None)
        start = heads[which]
    names = [part for part in loc[1 if start or len(loc) > 1 else 0 :] if isinstance(part, str)]
    for name in reversed(names):
        key = re.compile(rf"""\s*\[*["']?{re.escape(name)}["']?\s*[=.\]]|.*[{{,]\s*["']?{re.escape(name)}["']?\s*=""")
        for i in range(start, len(lines)):
            if i > start and len(loc) > 1 and re.match(r"\s*\[\[", lines[i]):
                break
            if key.match(lines[i]):
                return i + 1
    return start + 1 if lines and len(loc) > 1 else (1 if lines else None)
