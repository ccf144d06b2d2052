"""Strangers with many slow connections keep nobody out, large bodies are not taken, and a closed server is gone."""

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


PAGE = "/_dash-layout"  # an answer behind which the connection stays open


def ask(settings, path=PAGE, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=60)
    connection.request("GET", path, headers=headers)
    connection.auto_open = 0  # it must not find a new place silently
    return connection, connection.getresponse()


def ask_again(connection, **headers) -> int:
    connection.request("GET", PAGE, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def opened(stack, settings, said: bytes):
    one = stack.enter_context(socket.create_connection(("127.0.0.1", settings.port), timeout=60))
    one.sendall(said)
    return one


def is_closed(one) -> bool:
    """Whether the server has closed a connection; waits for it."""
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True


def test_many_slow_strangers_keep_nobody_out(running, monkeypatch):
    monkeypatch.setattr(connections, "_SECONDS", 1e9)  # places alone
    cookie = {"Cookie": f"other=1; workbench-{running.port}={TOKEN}"}
    with ExitStack() as stack:
        kept, answer = ask(running, **cookie)
        assert answer.status == 200
        answer.read()
        strangers = [opened(stack, running, b"GET / HTTP/1.1\r\nX-" + str(n).encode()) for n in range(300)]
        assert all(is_closed(one) for one in strangers[:200])  # whoever came first goes first
        _, answer = ask(running, **cookie)  # a new connection finds its place
        assert answer.status == 200
        assert ask_again(kept, **cookie) == 200  # and that of a user stays


def test_a_stranger_has_little_time_even_one_that_keeps_talking(running, monkeypatch):
    cookie = {"Cookie": f"workbench-{running.port}={TOKEN}"}
    user, answer = ask(running, **cookie)
    answer.read()
    monkeypatch.setattr(connections, "_SECONDS", 1.0)
    with ExitStack() as stack:
        silent = opened(stack, running, b"GET / HTTP/1.1\r\n")
        talking = opened(stack, running, b"GET / HTTP/1.1\r\n")
        begun = time.monotonic()
        while time.monotonic() - begun < 60:  # far more than its time and the pause between two looks
            try:
                talking.sendall(b"x")
            except ConnectionError:
                break
            time.sleep(0.1)
        assert is_closed(silent) and is_closed(talking)
        assert ask_again(user, **cookie) == 200


def test_many_slow_ones_with_the_token_keep_nobody_out(running, monkeypatch):
    monkeypatch.setattr(connections, "_UNFINISHED", 20)
    cookie = f"workbench-{running.port}={TOKEN}"
    kept, answer = ask(running, Cookie=cookie)
    answer.read()
    head = f"POST {PAGE} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nContent-Length: 9\r\n\r\n"
    with ExitStack() as stack:
        slow = [opened(stack, running, head.encode() + b"x") for _ in range(60)]
        assert all(is_closed(one) for one in slow[:40])  # whoever began first goes first
        _, answer = ask(running, Cookie=cookie)
        assert answer.status == 200
        assert ask_again(kept, Cookie=cookie) == 200  # one that says nothing at the moment stays
        slow[-1].sendall(b"x" * 8)  # and so does one that is among the last
        assert slow[-1].recv(1000).startswith(b"HTTP/1.1 405")


def test_a_body_that_is_too_large_is_refused_before_it_is_taken(running):
    with ExitStack() as stack:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n"
        assert b"413" in opened(stack, running, head).recv(1000)


def test_a_stranger_is_told_where_to_go(running):
    for headers, said in (({}, "no token"), ({"Cookie": f"workbench-{running.port}=old"}, "explorer that is no more")):
        _, answer = ask(running, "/", **headers)
        assert answer.status == 403 and said in answer.read().decode()


@pytest.mark.parametrize("other", [b"caf\xe9", b"\xff\xfe", b"\xf0\x9f"])
def test_another_pages_cookie_in_any_bytes_costs_no_answer(running, other):
    """Cookies of one host are shared by all its ports, and no rule says that they are UTF-8."""
    own = f"workbench-{running.port}={TOKEN}".encode()
    for cookie, status in ((b"theme=" + other + b"; " + own, b"200"), (b"theme=" + other, b"403")):
        for way in (b"GET " + PAGE.encode(), b"POST /leave"):
            head = b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nConnection: close\r\nCookie: " + cookie
            with ExitStack() as stack:
                one = opened(stack, running, way + head + b"\r\n\r\n{}")
                answer = one.recv(100)
            assert answer.startswith(b"HTTP/1.1 " + (b"400" if way.startswith(b"POST") and own in cookie else status))


def test_requests_that_wait_for_a_thread_write_nothing_to_the_terminal(running, caplog):
    cookie = f"workbench-{running.port}={TOKEN}"
    head = f"GET {PAGE} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
    with ExitStack() as stack:
        asked = [opened(stack, running, head) for _ in range(4 * running.threads)]
        assert all(one.recv(12) == b"HTTP/1.1 200" for one in asked)
    assert not [record.message for record in caplog.records if record.name.startswith("waitress")]


def test_a_server_that_is_closed_while_it_answers_writes_into_no_file_and_leaves_no_thread(tmp_path):
    """waitress wakes its loop by an "x" to a pipe, whose number is by then that of the next file that is opened."""
    began, goes_on, before = threading.Event(), threading.Event(), set(threading.enumerate())
    settings = Settings(models=("toy-induction",), token="", port=0)
    made = start(settings, [], load=lambda name, report: load(name))
    listening, answer = made.server, made.server.application

    def slow(environment, respond):
        began.set()
        assert goes_on.wait(60)
        return answer(environment, respond)

    listening.application = slow
    loop = threading.Thread(target=made.run, daemon=True)
    loop.start()
    place = ("127.0.0.1", int(listening.effective_port))
    with ExitStack() as stack:
        asked = stack.enter_context(socket.create_connection(place, timeout=60))
        asked.sendall(b"GET /alive HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert began.wait(60)
        number = listening.trigger.trigger
        made.close()
        files = [stack.enter_context(open(tmp_path / str(n), "wb", buffering=0)) for n in range(20)]
        assert number in [file.fileno() for file in files]
        listening.pull_trigger()  # as the thread may that is about to answer
        goes_on.set()
        until = time.monotonic() + 60
        for thread in set(threading.enumerate()) - before:
            thread.join(max(0, until - time.monotonic()))
        assert not set(threading.enumerate()) - before
    assert all((tmp_path / str(n)).read_bytes() == b"" for n in range(20))
