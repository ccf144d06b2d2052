"""What is said of an error that nobody foresaw."""

import os
import traceback
from pathlib import Path

from workbench.errors import WorkbenchError, in_words, of_the_machine

__all__ = ["DEBUG", "said_of"]

DEBUG = "WORKBENCH_DEBUG"


def said_of(error: Exception) -> WorkbenchError:
    """An error as a sentence: our own as it is, one of the machine in words, anything else as a mistake of ours.

    Raises the error itself where somebody looks for the mistake (`DEBUG` in the environment).
    """
    if isinstance(error, WorkbenchError):
        return error
    if os.environ.get(DEBUG):
        raise error
    return of_the_machine(error) or _bug(error)


def _bug(error: Exception) -> WorkbenchError:
    """What is neither the user's nor the machine's fault, in a sentence; whoever looks for it asks for the rest."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return WorkbenchError(
        f"{in_words(error)}{where}, which is a mistake of ours or of a library and not yours", "an answer",
        f"Report it with what {DEBUG}=1 in the environment shows",
    )  # fmt: skip
