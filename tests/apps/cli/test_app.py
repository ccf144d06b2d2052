"""`app`: what the explorer is given."""

import inspect
import socket

from apps.cli import main


def test_a_port_in_use_is_said(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = ["app", "--port", str(taken.getsockname()[1]), "--model", "toy-induction"]
        assert "--port" in refused(*words, code=1)


def test_the_explorer_gets_what_was_typed(monkeypatch):
    import apps.explorer
    from apps.explorer.web import server

    given = {}
    monkeypatch.setattr(apps.explorer, "serve", lambda **options: given.update(options))
    words = ["app", "--host", "0.0.0.0", "--port", "8051", "--model", "toy-induction", "--no-token", "--allow-network"]
    words += ["--also", "other.gguf", "--allow-files", "--memory", "0.5"]
    assert main(words) == 0
    assert given == {
        "model": "toy-induction", "host": "0.0.0.0", "port": 8051, "token": False, "allow_network": True,
        "models": ["other.gguf"], "any_file": True, "any_model": False, "memory": 0.5, "disk": 4.0,
    }  # fmt: skip
    inspect.signature(server.serve).bind(**given)
