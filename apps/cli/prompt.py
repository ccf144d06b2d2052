"""The prompt of a command line: raw text, a chat from a file, or token ids."""

import argparse
import json
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.models.prompt import Prompt

__all__ = ["prompt_of"]


def prompt_of(arguments: argparse.Namespace) -> Prompt | None:
    """What was given through `options.add_prompt`; None where nothing was."""
    if arguments.bos is not None and arguments.prompt is None:
        option = "--bos" if arguments.bos else "--no-bos"
        raise InputError(f"{option} without --prompt", "raw text to put it in front of", f"Leave out {option}")
    if arguments.prompt is not None:
        return Prompt(arguments.prompt, bos=arguments.bos)
    if arguments.ids is not None:
        return Prompt.ids([_integer(part) for word in arguments.ids for part in word.split(",") if part])
    if arguments.chat is not None:
        return Prompt.chat(_messages(arguments.chat))
    return None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--ids {text}", "integers", "Write for example --ids 1 504 3575") from None


def _messages(file: str) -> Any:
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"--chat {file} ({error.strerror})", "a JSON file that can be read", "Check the path"
        ) from error
    except ValueError as error:
        raise InputError(f"--chat {file}, which is not JSON ({error})", "a list of messages", "Correct it") from error
