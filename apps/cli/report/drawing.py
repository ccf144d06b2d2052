"""Pictures of figures, drawn in a process of its own: `python -m apps.cli.report.drawing`.

kaleido starts a browser, and a browser may hang while it starts, for which kaleido would wait without end. Standard
input says what is asked, the last line of standard output what came of it, both as JSON.
"""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.children import own_python
from workbench.errors import UnavailableError, in_words

__all__ = ["pictures"]

_SECONDS, _EACH = 60.0, 30.0  # that a browser may take to start, and for each picture


def pictures(figures: list[Any], **options: Any) -> list[bytes]:
    """Figures, as Plotly's JSON has them, as pictures. options: format, width, height, as kaleido takes them.

    Raises UnavailableError where there is no browser, or one that does not answer.
    """
    command, environment = own_python("-m", "apps.cli.report.drawing")
    given = json.dumps({"figures": figures, "options": options}).encode()
    seconds = _SECONDS + _EACH * len(figures)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:  # no more processes
        raise _undrawn(in_words(error)) from error
    try:
        said = process.communicate(given, timeout=seconds)[0].strip().splitlines()
        found = json.loads(said[-1])
    except subprocess.TimeoutExpired as error:
        raise _undrawn(f"the browser did not answer within {seconds:.0f} seconds") from error
    except (LookupError, ValueError) as error:
        raise _undrawn(f"the process that draws ended with code {process.returncode}") from error
    finally:
        _end(process)
    if "wrong" in found:
        raise _undrawn(found["wrong"])
    return [base64.b64decode(one) for one in found["made"]]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """With all that it started, in sessions of their own too."""
    if process.poll() is None:
        started = list(_started_by(process.pid))
        process.kill()
        for one in started:
            with suppress(OSError):
                os.kill(one, signal.SIGKILL)
        process.wait()


def _started_by(process: int) -> Iterator[int]:
    """The processes that one started, and those that these did; none where the system does not say."""
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, listed.read_text().split()):
                yield from (child, *_started_by(child))


def _undrawn(why: str) -> UnavailableError:
    return UnavailableError(
        f"a picture that could not be drawn ({why})",
        "kaleido (1.0 or later) and a browser of the Chromium family that it can start",
        "Install one (on Debian: apt install chromium), name it in BROWSER_PATH, or save as .html",
    )


def _draw(asked: dict[str, Any]) -> dict[str, Any]:
    """Drawn without anything of the network.

    By itself kaleido has the browser fetch MathJax from elsewhere, which no label of ours needs: where a firewall
    drops what it is asked, each picture would wait for it. Plotly's own `to_image` cannot say so.
    """
    try:
        import kaleido

        more = {"opts": asked["options"], "kopts": {"mathjax": False}}
        made = [kaleido.calc_fig_sync(figure, **more) for figure in asked["figures"]]
        return {"made": [base64.b64encode(one).decode() for one in made]}
    except Exception as error:  # kaleido has no browser, or the browser does not start
        return {"wrong": in_words(error)}


if __name__ == "__main__":
    print(json.dumps(_draw(json.load(sys.stdin))))
