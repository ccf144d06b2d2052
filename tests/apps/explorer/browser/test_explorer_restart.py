"""The server is killed in the middle of a job and started again: the page says so, keeps the prompt and recovers."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(port: int, place: Path, seconds: float) -> subprocess.Popen:
    """A server in a process of its own, once it answers."""
    script = Path(__file__).with_name("slow_server.py")
    root = Path(__file__).parents[4]
    environment = {**os.environ, "SLOW_SECONDS": str(seconds), "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, str(script), str(port), str(place)], cwd=root, env=environment)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/alive", timeout=1)
            return process
        except OSError:
            time.sleep(0.2)
    process.kill()
    pytest.fail("the server did not start within two minutes")


def test_a_killed_server_costs_no_prompt(browser, tmp_path):
    port = free_port()
    server = started(port, tmp_path, 0)
    try:
        page = browser.new_context().new_page()
        page.set_default_timeout(120_000)  # a limit for loaded machines
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#selfcheck")
        server.kill()
        server.wait()
        server = started(port, tmp_path, 60)
        page.fill("#prompt", "3 7 9 3")
        page.click("#run")
        page.wait_for_selector(".job")
        server.kill()
        server.wait()
        page.wait_for_selector("#connection:not([hidden])")
        server = started(port, tmp_path, 0)
        page.wait_for_selector(".notice:not(.connection)")
        assert "restarted" in page.inner_text("#notice-list")
        page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 4")
        assert page.input_value("#prompt") == "3 7 9 3"
    finally:
        server.kill()
        server.wait()
