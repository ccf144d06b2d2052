"""Sentences stay sentences, whatever was given: short, and no order to a terminal."""

import errno
import pickle

import pytest
import torch

from tests.another_user import as_another_user
from workbench.errors import InputError, RefusedError, UnavailableError, in_words, of_the_machine, visible


def test_a_long_value_makes_no_long_sentence():
    error = InputError("x" * 4_000 + "END", "something shorter", "Shorten it")
    assert len(str(error)) < 450 and "END" in str(error) and "4,003 characters" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("order", ["\x1b[2J", "\x9b31m", "\u202egpj", "\u2028", "\x07", "\udc80"])
def test_no_sentence_is_an_order_to_a_terminal(order):
    said = str(InputError(f"the file {order}.nc", f"no {order}", f"Drop {order}"))
    assert order not in said and order[0] not in said and "\\" in said
    assert visible("Zürich\n東京") == "Zürich\n東京"


def test_memory_and_storage_are_nobodys_bug():
    assert isinstance(of_the_machine(MemoryError()), RefusedError)
    assert isinstance(of_the_machine(OSError(errno.ENOSPC, "No space left on device", "/a")), UnavailableError)
    rust = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert str(of_the_machine(rust)).startswith("Got no space left on the disk; ")
    assert of_the_machine(ValueError("no space left on device")) is None  # which may quote what was given
    assert of_the_machine(ValueError("shape")) is None and of_the_machine(RuntimeError("shape")) is None
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)  # what the allocator says, whatever its words are in this version
    assert isinstance(of_the_machine(raised.value), RefusedError)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("/lib/x.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        Exception("Cannot allocate memory (os error 12)"),  # of a library in Rust, whose errors are of its own kind
    ],
)
def test_memory_that_the_system_or_a_loader_lacks_is_said(error):
    """Under a limit of addresses (`ulimit -v`, a job of a cluster) a library is what does not fit."""
    assert isinstance(of_the_machine(error), RefusedError)
    assert of_the_machine(ImportError("no module named x")) is None
    assert of_the_machine(KeyError("a word that says out of memory")) is None


def test_files_that_ran_out_are_said():
    assert "ulimit" in str(of_the_machine(OSError(errno.EMFILE, "Too many open files", "/a")))


def test_what_a_user_may_not_read_is_nobodys_bug(tmp_path):
    file = tmp_path / "theirs"
    file.touch()
    with as_another_user(file), pytest.raises(PermissionError) as raised:
        file.read_text()
    said = of_the_machine(raised.value)
    assert isinstance(said, UnavailableError) and f"no permission for {file}" in str(said)


def test_a_librarys_error_is_its_first_line():
    assert in_words(RuntimeError("one.\ntwo")) == "RuntimeError: one" and in_words(KeyError()) == "KeyError"
    assert in_words(RuntimeError("It closed.", "Try another.")) == "RuntimeError: It closed"  # as a browser that ends


def test_a_library_that_is_not_installed_is_no_mistake_of_ours():
    """The page's are an extra of ours; what others ask for has its own name; a file of ours that is gone is a bug."""
    missing = lambda name: of_the_machine(ModuleNotFoundError(f"No module named {name!r}", name=name))
    said = str(missing("dash_ag_grid"))
    assert "no installed library dash_ag_grid;" in said and "pip install 'interp-workbench[app]'" in said
    assert str(missing("some.part")).endswith("library some; expected what this needs. Install it: pip install some.")
    assert missing("workbench.gone") is None and missing("probes") is None
