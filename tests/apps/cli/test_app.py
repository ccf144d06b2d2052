"""`app`: what the explorer is given."""

import inspect
import socket
from pathlib import Path

from apps.cli import main


def test_a_port_in_use_is_said(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = ["app", "--port", str(taken.getsockname()[1]), "--model", "toy-induction"]
        assert "--port" in refused(*words, code=1)


def test_a_device_that_is_not_there_is_said_before_the_page_starts(refused):
    assert "a device this PyTorch can use" in refused("app", "--device", "cuda:77")


def test_its_models_are_loaded_as_it_was_told(monkeypatch):
    import torch

    from apps.explorer.engine.hosted import loader
    from apps.explorer.engine.settings import Settings
    from workbench.loading import pretrained

    given = {}
    monkeypatch.setattr(pretrained, "load", lambda name, **options: given.update(options))
    loader(Settings(("some",), dtype="float16", device="cpu"))("some", print)
    assert given["dtype"] is torch.float16 and given["device"] == "cpu"


def test_the_explorer_gets_what_was_typed(monkeypatch):
    import apps.explorer
    from apps.explorer.web import server

    given = {}
    monkeypatch.setattr(apps.explorer, "serve", lambda **options: given.update(options))
    words = ["app", "--host", "0.0.0.0", "--port", "8051", "--model", "toy-induction", "--no-token", "--allow-network"]
    words += ["--also", "other.gguf", "--allow-files", "--memory", "0.5", "--dtype", "bfloat16", "--device", "cpu"]
    words += ["--check", "--base-path", "/lab/", "--host-name", "hub.example"]
    assert main(words) == 0
    assert given == {
        "model": "toy-induction", "host": "0.0.0.0", "port": 8051, "token": False, "allow_network": True,
        "models": ["other.gguf"], "any_file": True, "any_model": False, "memory": 0.5, "disk": 4.0,
        "dtype": "bfloat16", "device": "cpu", "check": True, "runs": Path("runs"),
        "base_path": "/lab/", "hosts": ["hub.example"],
    }  # fmt: skip
    inspect.signature(server.serve).bind(**given)


def test_what_it_may_keep_is_said_at_its_start(monkeypatch, capsys, tmp_path):
    from types import SimpleNamespace

    from apps.explorer.web import server

    given = []
    running = SimpleNamespace(address="http://here", run=lambda: None, close=lambda: None)
    monkeypatch.setattr(server, "start", lambda settings, catalog: given.append(settings) or running)
    server.serve("toy-induction", catalog=(), memory=0.25, disk=3, directory=tmp_path)
    assert (given[0].memory, given[0].disk) == (1 << 28, 3 << 30)
    out = capsys.readouterr().out
    assert "0.25 GiB of results in memory" in out and f"3 GiB in {tmp_path}" in out
