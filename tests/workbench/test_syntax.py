"""Sources are read beside other threads."""

import ast
import gc
import threading
import time
from pathlib import Path

import pytest

from workbench.syntax import parse

SOURCES = [path.read_bytes() for path in sorted(Path(__file__).parents[2].glob("workbench/**/*.py"))[:20]]


def test_threads_that_parse_at_once_each_get_their_tree():
    """Every collection of garbage hands over to another thread: plain ast.parse then fails in some runs."""
    yielding = lambda *_: time.sleep(0)
    failed, before = [], gc.get_threshold()

    def read():
        try:
            for source in SOURCES:
                assert ast.dump(parse(source)) == wanted[source]
        except BaseException as error:
            failed.append(error)

    wanted = {source: ast.dump(ast.parse(source)) for source in SOURCES}
    threads = [threading.Thread(target=read) for _ in range(4)]
    gc.callbacks.append(yielding)
    gc.set_threshold(200)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(yielding)
        gc.set_threshold(*before)
    assert not failed


def test_what_is_no_python_is_refused_at_once():
    with pytest.raises(SyntaxError):
        parse("def")


def test_the_interpreters_fault_is_tried_again(monkeypatch):
    answers = [SystemError("AST constructor recursion depth mismatch"), "a tree"]

    def faulty(source):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ast, "parse", faulty)
    assert parse("x = 1") == "a tree" and not answers
