"""The prompts of a command line: raw text, a chat from a file, token ids, or many prompts or pairs from a file."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.cli.progress import Progress, warnings_as_notes
from workbench.errors import InputError
from workbench.models.inputs import kinds_of
from workbench.models.prompt import Prompt
from workbench.records import read_json, read_pairs, read_prompts

__all__ = ["Given", "prompt_of", "prompts_of"]


@dataclass(frozen=True)
class Given:
    """One prompt, None where none was given, and the parameters that come with it."""

    prompt: Prompt | None
    parameters: Mapping[str, str] = field(default_factory=dict)


def prompts_of(arguments: argparse.Namespace) -> list[Given]:
    """What was given through `options.add_prompt`, one or many."""
    file, form = arguments.prompt_file or arguments.pair_file, arguments.format or ""
    for name in ("column", "format", "encoding"):
        if getattr(arguments, name) and file is None:
            raise InputError(f"--{name} without --prompt-file", "a file to read", "Name it, or leave the option out")
    if file is None:
        return [Given(prompt_of(arguments))]
    if arguments.bos is not None and arguments.pair_file:
        option = "--bos" if arguments.bos else "--no-bos"
        raise InputError(f"{option} with --pair-file", "raw text of --prompt or --prompt-file", f"Leave out {option}")
    source = sys.stdin.buffer if file == "-" else file
    encoding = arguments.encoding or "utf-8"
    if arguments.pair_file:
        columns = _columns(arguments.column)
        with warnings_as_notes(Progress()):
            pairs = read_pairs(source, columns=columns, format=form, encoding=encoding)
        return [Given(Prompt(pair.clean), pair.parameters) for pair in pairs]
    if len(arguments.column) > 1:
        raise InputError(f"--column {' and '.join(arguments.column)}", "one column of prompts", "Leave the others out")
    found = read_prompts(source, column="".join(arguments.column), format=form, encoding=encoding)
    return [Given(one if one.text is None else Prompt(one.text, bos=arguments.bos)) for one in found]


def _columns(given: Sequence[str]) -> dict[str, str]:
    """The columns of a file of pairs by what they hold, from texts such as "answer=correct"."""
    found: dict[str, str] = {}
    for text in given:
        part, equals, name = text.partition("=")
        if not equals or not name:
            raise InputError(f"--column {text} with --pair-file", "what it holds and its name", "Write answer=correct")
        if part in found:
            raise InputError(f"--column {part}= twice", "one column", "Leave one out")
        found[part] = name
    return found


def prompt_of(arguments: argparse.Namespace) -> Prompt | None:
    """The one prompt that was given on the command line itself; None where none was."""
    if arguments.bos is not None and arguments.prompt is None:
        option = "--bos" if arguments.bos else "--no-bos"
        raise InputError(f"{option} without --prompt", "raw text to put it in front of", f"Leave out {option}")
    if arguments.prompt is not None:
        return Prompt(arguments.prompt, bos=arguments.bos)
    if arguments.ids is not None:
        return Prompt.ids([_integer(part) for word in arguments.ids for part in word.split(",") if part])
    if arguments.chat is not None:
        return _chat(arguments.chat)
    return None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--ids {text}", "integers", "Write for example --ids 1 504 3575") from None


def _chat(file: str) -> Prompt:
    """A file of messages, by themselves or as {"messages": [...]}."""
    value: Any = read_json(file)
    kinds = kinds_of(value) if isinstance(value, list | dict) else []
    if [kind for kind, _ in kinds] != ["messages"]:
        raise InputError(
            f"--chat {file}, which holds no chat", "a list of messages with role and content", "Correct it"
        )
    return Prompt(messages=kinds[0][1])
