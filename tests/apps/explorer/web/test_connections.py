"""Strangers with many slow connections keep nobody out, and large bodies are not taken."""

import http.client
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from apps.explorer.engine.settings import Settings
from apps.explorer.web import connections
from apps.explorer.web.server import start
from workbench import load

TOKEN = "secret-token"


@pytest.fixture
def running():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(models=("toy-induction",), token=TOKEN, port=port)
    made = start(settings, [], load=lambda name, report: load(name))
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    yield settings
    made.close()
    thread.join(30)


def ask(settings, path="/alive", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=60)
    connection.request("GET", path, headers=headers)
    return connection, connection.getresponse()


def opened(stack, settings, said: bytes):
    one = stack.enter_context(socket.create_connection(("127.0.0.1", settings.port), timeout=60))
    one.sendall(said)
    return one


def answer_of(one) -> bytes:
    """An answer without a body."""
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        part = one.recv(1 << 16)
        assert part, said
        said += part
    return said


def is_closed(one) -> bool:
    """Whether the server has closed a connection; waits for it."""
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True


def test_many_slow_strangers_keep_nobody_out(running):
    cookie = {"Cookie": f"other=1; workbench-{running.port}={TOKEN}"}
    with ExitStack() as stack:
        kept, answer = ask(running, **cookie)
        assert answer.status == 204
        answer.read()
        for n in range(300):
            opened(stack, running, b"GET / HTTP/1.1\r\nX-" + str(n).encode())
        _, answer = ask(running, **cookie)  # a new connection finds its place
        assert answer.status == 204
        kept.request("GET", "/alive", headers=cookie)  # and that of a user stays
        assert kept.getresponse().status == 204


def test_a_stranger_has_little_time_even_one_that_keeps_talking(running, monkeypatch):
    monkeypatch.setattr(connections, "_SECONDS", 1.0)
    with ExitStack() as stack:
        silent = opened(stack, running, b"GET / HTTP/1.1\r\n")
        talking = opened(stack, running, b"GET / HTTP/1.1\r\n")
        cookie = f"Cookie: workbench-{running.port}={TOKEN}\r\n".encode()
        user = opened(stack, running, b"GET /alive HTTP/1.1\r\nHost: localhost\r\n" + cookie + b"\r\n")
        assert b" 204 " in answer_of(user)
        begun = time.monotonic()
        while time.monotonic() - begun < 5:  # more than its time and the pause between two looks
            try:
                talking.sendall(b"x")
            except ConnectionError:
                break
            time.sleep(0.1)
        assert is_closed(silent) and is_closed(talking)
        user.sendall(b"GET /alive HTTP/1.1\r\nHost: localhost\r\n" + cookie + b"\r\n")
        assert b" 204 " in answer_of(user)


def test_a_body_that_is_too_large_is_refused_before_it_is_taken(running):
    with ExitStack() as stack:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n"
        assert b"413" in opened(stack, running, head).recv(1000)


def test_a_stranger_is_told_where_to_go(running):
    for headers, said in (({}, "no token"), ({"Cookie": f"workbench-{running.port}=old"}, "explorer that is no more")):
        _, answer = ask(running, "/", **headers)
        assert answer.status == 403 and said in answer.read().decode()
