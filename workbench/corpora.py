"""Texts to run over, each with a name and a hash, so that a number can say what it was measured on.

What every machine has offline is the interpreter's own documentation (`pydoc_data.topics`, the text behind `help()`),
docstrings and source. They differ between Python versions, so a document carries the version beside its hash. A user's
own text files, and data sets of a hub where the network is allowed, make corpora of the same kind.
"""

import ast
import json
import os
import platform
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workbench.errors import FileError, InputError, UnavailableError
from workbench.files import read_whole
from workbench.rows import ENDINGS, rows
from workbench.syntax import parse

__all__ = [
    "BUNDLED",
    "REFERENCE_TOPICS",
    "Corpus",
    "Document",
    "corpus_digest",
    "deduplicated",
    "find_corpus",
    "hub_corpus",
    "names_file",
    "python_corpus",
    "python_domains",
    "python_topic",
    "reference_text",
    "text_corpus",
]

# Prose and code in about equal parts, some 25,000 characters.
REFERENCE_TOPICS = ("execmodel", "import", "exceptions", "objects", "naming", "strings", "calls")

BUNDLED = ("prose", "code")  # domains of `python_domains`
_HUB = "hub:"  # in front of the name of a data set
_MOST = 1 << 32  # bytes of a text file
_GRAM = 16  # words: a shared run of so many is a copy, not a coincidence
_SHARED = 0.3  # of a document's runs in a larger one: it is an extract of that
# Characters taken of a topic, of a module's docstrings and of a module's source: no single document dominates.
_TOPIC, _DOCSTRINGS, _SOURCE = 10_000, 2_000, 1_000
_SHARES = (("train", 0.70), ("val", 0.08), ("test", 0.22))


@dataclass(frozen=True)
class Document:
    """A named text. digest: sha256 of its UTF-8 bytes, 64 hex digits. python: the version it came with, or ""."""

    name: str
    text: str = field(repr=False)
    python: str = ""
    digest: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha256(self.text.encode()).hexdigest())

    def __str__(self) -> str:
        return f"{self.name}@{self.digest[:12]}" + (f" (Python {self.python})" if self.python else "")


@dataclass(frozen=True)
class Corpus:
    """Named documents. python: the version they came with, or ""."""

    name: str
    documents: tuple[Document, ...] = field(repr=False)
    python: str = ""

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def digest(self) -> str:
        """sha256 over the names and digests of the documents, 64 hex digits."""
        return sha256("\n".join(f"{d.name} {d.digest}" for d in self.documents).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.name}@{self.digest[:12]}" + (f" (Python {self.python})" if self.python else "")

    def split(self, seed: int = 0) -> "dict[str, Corpus]":
        """Parts "train" (70 % of the documents), "val" (8 %) and "test" (22 %), by document.

        The order is by a hash of the document's name, so a document that is added or changed moves few others. Raises
        InputError for fewer than three documents.
        """
        if len(self) < 3:
            raise InputError(f"{len(self)} documents in {self.name}", "at least 3, one for each part", "Add documents")
        mixed = sorted(self.documents, key=lambda d: sha256(f"{seed} {d.name}".encode()).digest())
        n_val, n_test = (max(1, round(share * len(mixed))) for _, share in _SHARES[1:])
        ends = {"train": (0, len(mixed) - n_val - n_test), "val": (len(mixed) - n_val - n_test, len(mixed) - n_test)}
        ends["test"] = (len(mixed) - n_test, len(mixed))
        return {part: Corpus(f"{self.name}/{part}", tuple(mixed[a:b]), self.python) for part, (a, b) in ends.items()}


def python_topic(name: str) -> Document:
    """One topic of the interpreter's documentation, such as `execmodel`."""
    topics = _topics()
    if name not in topics:
        raise InputError(f"the topic {name!r}", f"one of {', '.join(sorted(topics)[:8])} ...", "Choose one of these")
    return Document(f"python-{name}", topics[name], platform.python_version())


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UnavailableError(
            "a Python without pydoc_data",
            "the interpreter's documentation",
            "Install Python's standard library in full",
        ) from error
    return topics


def reference_text() -> Document:
    """The text that mean ablations and noise scales are measured on, unless another is named."""
    parts = [python_topic(name).text for name in REFERENCE_TOPICS]
    return Document("python-reference", "\n\n".join(parts), platform.python_version())


def python_corpus() -> Corpus:
    """The interpreter's documentation, docstrings and source: some 110,000 tokens of prose and code.

    Topics that repeat a larger one are left out; of every module either docstrings or the head of its source is used.
    Nothing is imported: modules are read as text.
    """
    version = platform.python_version()
    topics = [Document(f"topic-{name}", text[:_TOPIC], version) for name, text in sorted(_topics().items())]
    return Corpus("python", (*deduplicated(topics), *_modules(version)), version)


def _modules(version: str) -> Iterator[Document]:
    """Every third public module of the standard library by the head of its source, the others by their docstrings."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    names = {path.stem if path.parent == folder else path.parent.name: path for path in paths}
    for index, (name, path) in enumerate(sorted(names.items())):
        if name.startswith("_") or not name.isidentifier() or name in ("test", "idlelib", "lib2to3", "this"):
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        text = source[:_SOURCE] if index % 3 == 0 else "\n\n".join(_docstrings(source))[:_DOCSTRINGS]
        if len(text) >= 200:
            yield Document(f"{'source' if index % 3 == 0 else 'docstrings'}-{name}", text, version)


@cache
def python_domains() -> Mapping[str, Corpus]:
    """English technical prose and Python code for comparing the two, one document a source.

    "prose": topics of the documentation and docstrings of modules. "code": source of modules from the first class or
    function on. Documents have 800 to 4,000 characters.
    """
    version = platform.python_version()
    prose = [Document(f"topic-{name}", text[:4000], version) for name, text in sorted(_topics().items())]
    code = []
    for name, source in sorted(_sources().items()):
        docstring, behind = _split(source)
        prose.append(Document(f"docstring-{name}", docstring[:4000], version))
        code.append(Document(f"code-{name}", behind[:4000], version))
    kinds = {"prose": prose, "code": code}
    long = {kind: [document for document in found if len(document.text) >= 800] for kind, found in kinds.items()}
    corpora = {kind: Corpus(f"python-{kind}", deduplicated(found), version) for kind, found in long.items()}
    return MappingProxyType(corpora)  # the same for all who ask


def _sources() -> dict[str, str]:
    """Source of the modules at the top of the standard library and of its packages' heads, by name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    found = {path.stem if path.parent == folder else path.parent.name: path for path in paths}
    return {name: path.read_text(encoding="utf-8", errors="replace") for name, path in found.items()}


def _split(source: str) -> tuple[str, str]:
    """A module's docstring, and its source from the first class or function on (licences and imports stand before)."""
    tree = parse(source)
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = next((node.lineno for node in tree.body if isinstance(node, kinds)), None)
    code = "" if first is None else "\n".join(source.splitlines()[first - 1 :])
    return ast.get_docstring(tree) or "", code.strip()


def _docstrings(source: str) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(parse(source)):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text


def deduplicated(documents: Sequence[Document], share: float = _SHARED, gram: int = _GRAM) -> tuple[Document, ...]:
    """Documents without those that are, by more than `share` of their runs of `gram` words, extracts of a larger one.

    Without this the same paragraph stands in the training part and in the test part. Keeps the order given.
    """
    kept: list[tuple[Document, set[int]]] = []
    for document in sorted(documents, key=lambda d: (-len(d.text), d.name)):
        grams = _grams(document.text, gram)
        if not any(len(grams & other) > share * len(grams) for _, other in kept):
            kept.append((document, grams))
    names = {document.name for document, _ in kept}
    return tuple(document for document in documents if document.name in names)


def _grams(text: str, n: int) -> set[int]:
    words = text.split()
    return {hash(tuple(words[i : i + n])) for i in range(len(words) - n + 1)} or {hash(tuple(words))}


def find_corpus(name: str, *, allow_network: bool = False) -> Corpus:
    """Texts by what a user types: "prose" or "code", "hub:NAME" or "hub:NAME:COLUMN", else a file or a folder.

    Raises as `hub_corpus` and `text_corpus` do.
    """
    if name in BUNDLED:
        return python_domains()[name]
    if not names_file(name):
        data_set, _, column = name.removeprefix(_HUB).partition(":")
        return hub_corpus(data_set, column=column or "text", allow_network=allow_network)
    return text_corpus([name], name)


def names_file(name: str) -> bool:
    """Whether `find_corpus` would read a file or folder of this machine."""
    return name not in BUNDLED and not name.startswith(_HUB)


def corpus_digest(name: str) -> str:
    """What the texts are, without a network: the Python that bundled ones come with, the content of files, a name."""
    if names_file(name):
        return text_corpus([name], name).digest
    return f"Python {platform.python_version()}" if name in BUNDLED else name


def text_corpus(paths: Iterable[str | Path], name: str = "files") -> Corpus:
    """A user's own text files (UTF-8), one document each; folders are searched for .txt, .md, .rst and .py. Of a file
    of records (.csv, .tsv, .jsonl, .json, .parquet) each is a document, by its "text" or "prompt".

    Raises FileError for a missing file, InputError for one that is not UTF-8 text, has records without a text, or no
    text at all.
    """
    documents = [document for path in _files(paths) for document in _documents(path)]
    documents = [document for document in documents if document.text.strip()]
    if not documents:
        raise InputError(f"no text in {', '.join(map(str, paths))}", "text files", "Name files or folders with text")
    return Corpus(name, deduplicated(documents))


def _files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if os.path.isdir(path):  # false, and no error, for what is no name of a file at all
            yield from sorted(
                p for p in path.rglob("*") if p.suffix.lower() in (".txt", ".md", ".rst", ".py") and p.is_file()
            )
        else:
            yield path


def _documents(path: Path) -> Iterator[Document]:
    """Of a file. One of records read as a text would be quotes, commas and the names of its columns."""
    if ENDINGS.get(path.suffix.lower(), "text") == "text" or not path.is_file():
        yield _read(path)
        return
    for row in rows(path):
        cells = row.value if isinstance(row.value, Mapping) else {"text": row.value}
        text = next((cells[name] for name in ("text", "prompt") if name in cells), None)
        if not isinstance(text, str):
            raise InputError(f"{row.where} without a text", 'a column "text" or "prompt" of texts', "Name it so")
        yield Document(f"{path} {row.place}", text)


def _read(path: Path) -> Document:
    try:
        return Document(str(path), read_whole(path, _MOST).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, which is not UTF-8 ({error.reason})", "UTF-8 text", "Convert the file") from error
    except InputError as error:
        raise FileError(f"no readable file at {path} ({error.got})", "a text file", "Check the path") from error


def hub_corpus(
    name: str, *, split: str = "train", column: str = "text", limit: int = 500, allow_network: bool = False
) -> Corpus:
    """The first `limit` rows of a data set of the Hugging Face hub, as its data viewer shows them.

    Asked over HTTPS in pages of 100 rows; no library and no code of the data set is run. Raises InputError where the
    network is not allowed, UnavailableError where the hub does not answer or has no such rows.
    """
    if not allow_network:
        raise InputError(
            f"the hub data set {name!r}", "the network to be allowed", "Allow it (on the command line --allow-network)"
        )
    documents = []
    for start in range(0, limit, 100):
        found = _hub_rows(name, split, start, min(100, limit - start))
        texts = [row["row"].get(column) for row in found]
        if any(not isinstance(text, str) for text in texts):
            had = ", ".join(sorted(found[0]["row"]))
            raise InputError(f"rows of {name} without text in {column!r}", f"one of {had}", "Name the column of text")
        documents += [Document(f"{name}-{start + i}", text) for i, text in enumerate(texts)]
        if len(found) < 100:
            break
    return Corpus(name, deduplicated(documents))


def _hub_rows(name: str, split: str, start: int, length: int) -> list[dict[str, Any]]:
    from urllib.error import URLError
    from urllib.parse import urlencode
    from urllib.request import urlopen

    asked = urlencode({"dataset": name, "config": "default", "split": split, "offset": start, "length": length})
    try:
        with urlopen(f"https://datasets-server.huggingface.co/rows?{asked}", timeout=30) as answer:
            return json.load(answer)["rows"]
    except (URLError, TimeoutError, ValueError, KeyError) as error:
        raise UnavailableError(
            f"no rows of {name} from the hub ({error})", "a public data set", "Check the network, and its name"
        ) from error
