"""What the tests of the command line share."""

from collections.abc import Callable

import pytest

from apps.cli import main


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """Run a command that must fail; returns its one line on stderr."""

    def run(*words: str, code: int = 2) -> str:
        assert main(words) == code
        out, err = capsys.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("workbench: Got ") and "; expected " in lines[0]
        return lines[0]

    return run
