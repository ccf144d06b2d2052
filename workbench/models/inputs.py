"""Inputs: the one place that decides what counts as a prompt.

Text, a chat (messages with "role" and "content"), token ids in a list, an array or a tensor, and what a tokenizer
returns (`tokenizer(text)`). Whatever else is given is refused in a sentence: nothing is run that was not meant.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import IOBase
from os import PathLike
from typing import Any

from workbench.errors import InputError

__all__ = ["MARK", "Messages", "as_ids", "as_messages", "as_text", "kinds_of"]

Messages = tuple[tuple[str, str], ...]

MARK = "\ufeff"  # a byte order mark
_KEYS = {"role", "content"}
# What a tokenizer may return beside ids and their mask; anything else would be a call of the model, not a prompt.
_TOLD = {
    "input_ids", "attention_mask", "token_type_ids", "special_tokens_mask", "offset_mapping", "length", "labels",
    "overflow_to_sample_mapping", "overflowing_tokens", "num_truncated_tokens",
}  # fmt: skip


def kinds_of(given: Any, known: tuple[type, ...] = ()) -> list[tuple[str, Any]]:
    """The prompts that a value stands for, as (kind, value): "text", "messages", "token_ids".

    known: classes whose instances are prompts already, of kind "known". Lists hold one prompt's ids, one chat's
    messages, or several prompts; arrays and tensors one prompt (one axis) or one a row (two axes). Of what a tokenizer
    returns, padding is left out. Raises InputError for anything else.
    """
    if isinstance(given, known):
        return [("known", given)]
    if isinstance(given, str):
        return [("text", as_text(given))]
    if isinstance(given, Mapping):
        return _of_mapping(given)
    if _is_encoding(given):
        return [("token_ids", as_ids(given.ids))]
    if isinstance(given, bytes | bytearray | memoryview | PathLike | IOBase):  # lines of a file end in line breaks
        raise _refused(given)
    if _is_array(given):
        return _of_array(given)
    if not isinstance(given, Sequence | Iterator):
        raise _refused(given)
    return _of_list(list(given), known)


def as_text(given: Any) -> str:
    """Text that can be tokenised: no lone surrogates, which stand for bytes that are no text."""
    if not isinstance(given, str):
        raise _refused(given)
    text = str.__str__(given)  # its characters, also of a member of an enumeration, which prints its name
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text whose character {error.start} is none ({text[error.start]!a})",
            "Unicode text",
            "Give it in UTF-8: such characters come from bytes in another encoding",
        ) from error
    return text


def as_ids(given: Any) -> tuple[int, ...]:
    """One prompt's token ids: integers in a list, an array or a tensor, also of one row; InputError for others."""
    given = _plain(given)
    if not isinstance(given, Sequence | Iterator) or isinstance(given, str | bytes | bytearray):
        raise _no_ids(given)
    values = list(given)
    if len(values) == 1 and not _is_number(values[0]) and not isinstance(values[0], str):
        inner = _plain(values[0])
        if inner is values[0] and _is_list(inner) and any(_is_list(value) for value in inner):
            raise _no_ids(given)
        return as_ids(inner)  # [1, pos]
    return tuple(_as_id(value, values) for value in values)


def as_messages(given: Any) -> Messages:
    """A chat as (role, content) pairs. Content given as parts of text is joined; others are refused, and so are keys
    that would be dropped."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise InputError(
            f"messages {_short(given)}", "a list of {'role': ..., 'content': ...}", "Give one dictionary a message"
        )
    pairs = tuple(_message(message, at) for at, message in enumerate(given))
    if not pairs:
        raise InputError("a chat of no messages", "at least one", "Give a message of the role 'user'")
    return pairs


def _message(message: Any, at: int) -> tuple[str, str]:
    if isinstance(message, tuple) and len(message) == 2:
        message = dict(zip(("role", "content"), message, strict=True))
    if not isinstance(message, Mapping) or not set(message) >= _KEYS:
        raise InputError(
            f"message {at}, {_short(message)}", "a role and a content, {'role': ..., 'content': ...}", "Give both keys"
        )
    if unknown := [key for key in message if key not in _KEYS and message[key] is not None]:
        raise InputError(
            f"the key {unknown[0]!r} in message {at}", "role and content", "Render it yourself and give the text"
        )
    if not isinstance(message["role"], str):
        raise InputError(f"the role {message['role']!r} of message {at}", "a text", "Correct it")
    return as_text(message["role"]), _content(message["content"], at)


def _content(content: Any, at: int) -> str:
    """The text of a message, also from parts such as [{"type": "text", "text": "..."}]."""
    found = []
    for part in content if isinstance(content, list | tuple) else [content]:
        is_text = not isinstance(part, Mapping) or part.get("type", "text") == "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str) or not is_text:
            raise InputError(
                f"the content {_short(part)} of message {at}", "text, or parts of the type 'text'", "Give its text"
            )
        found.append(as_text(text))
    return "".join(found)


def _of_mapping(given: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    if "input_ids" in given:
        if beside := [key for key in given if key not in _TOLD and given[key] is not None]:
            raise InputError(
                f"token ids with {beside[0]!r} beside them", "ids and an attention_mask", "Leave it out: it is not used"
            )
        return _of_encoded(given["input_ids"], given.get("attention_mask"))
    if set(given) >= _KEYS:
        return [("messages", as_messages([given]))]
    if set(given) == {"messages"}:
        return [("messages", as_messages(given["messages"]))]
    raise InputError(
        f"a dictionary with {', '.join(map(repr, list(given)[:5])) or 'nothing'}",
        "what a tokenizer returns ('input_ids'), or a message ('role', 'content')",
        "Give the text itself",
    )


def _of_encoded(ids: Any, mask: Any) -> list[tuple[str, Any]]:
    """What a tokenizer returned: one prompt or one a row, without its padding."""
    rows = _rows(ids)
    masks = [[True] * len(row) for row in rows] if mask is None else _rows(mask)
    if [len(row) for row in rows] != [len(marks) for marks in masks]:
        raise InputError("an attention_mask of another shape than the input_ids", "one mark a token", "Correct it")
    return [("token_ids", as_ids(_unpadded(row, marks))) for row, marks in zip(rows, masks, strict=True)]


def _unpadded(row: list[Any], marks: list[Any]) -> list[Any]:
    """The ids between the padding at both ends. A mask of other marks, or with a hole, is of another pass than ours."""
    marks = [_plain(mark) for mark in marks]
    if odd := [mark for mark in marks if not isinstance(mark, int | float) or mark not in (0, 1)]:
        raise InputError(f"the mark {odd[0]!r} in an attention_mask", "1 for a token, 0 for padding", "Correct it")
    on = [at for at, mark in enumerate(marks) if mark]
    if on and on[-1] - on[0] + 1 != len(on):
        raise InputError(
            "an attention_mask that hides a token between others",
            "padding at the ends",
            "Leave the token out, or hide it from queries with Knockout",
        )
    return row[on[0] : on[-1] + 1] if on else []


def _rows(values: Any) -> list[list[Any]]:
    """One row of values or several, as lists."""
    values = _plain(values)
    if not isinstance(values, list | tuple):
        raise _no_ids(values)
    rows = [_plain(row) if _is_array(row) and row.ndim else row for row in values]
    if rows and all(isinstance(row, list | tuple) for row in rows):
        return [list(row) for row in rows]
    if any(isinstance(row, list | tuple) for row in rows):
        raise _no_ids(values)
    return [rows]


def _of_array(given: Any) -> list[tuple[str, Any]]:
    values = _plain(given)
    if given.ndim not in (1, 2):
        raise InputError(
            f"an array of {given.ndim} axes", "token ids over [pos] or [prompt, pos]", "Give one prompt's ids"
        )
    if given.ndim == 1:
        return (
            _of_list(values, ()) if any(isinstance(value, str) for value in values) else [("token_ids", as_ids(values))]
        )
    return [("token_ids", as_ids(row)) for row in values]


def _of_list(values: list[Any], known: tuple[type, ...]) -> list[tuple[str, Any]]:
    if values and all(_is_number(value) for value in values):
        return [("token_ids", as_ids(values))]
    if values and all(isinstance(value, Mapping) and "role" in value for value in values):
        return [("messages", as_messages(values))]
    if any(_is_number(value) for value in values):
        raise _no_ids(values)
    return [one for value in values for one in (kinds_of(value, known) if not _is_list(value) else _of_inner(value))]


def _of_inner(given: Sequence[Any]) -> list[tuple[str, Any]]:
    """A list in a list of prompts: one prompt's ids or one chat's messages. A list of prompts there would lose which
    belong together."""
    values = list(given)
    if values and all(isinstance(value, Mapping) and "role" in value for value in values):
        return [("messages", as_messages(values))]
    if not values or all(_is_number(value) for value in values) or (len(values) == 1 and _is_list(values[0])):
        return [("token_ids", as_ids(values))]
    raise InputError(
        f"the prompt {_short(given)} in a list of prompts", "a text, a chat or token ids", "Give one flat list of them"
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _plain(given: Any) -> Any:
    """The lists of an array or a tensor, InputError where its numbers cannot be had so; other values as they are."""
    if not _is_array(given):
        return given
    try:
        return given.tolist()
    except (RuntimeError, NotImplementedError) as error:  # sparse, quantised, on the device "meta"
        raise InputError(
            f"{type(given).__name__} of {getattr(given, 'dtype', 'unknown type')} whose numbers cannot be read",
            "token ids in a dense array of integers",
            "Give its numbers in a list",
        ) from error


def _is_array(given: Any) -> bool:
    """Of numpy, torch, pandas or the like."""
    return hasattr(given, "tolist") and hasattr(given, "ndim")


def _is_encoding(given: Any) -> bool:
    """What the tokenizers library returns."""
    return isinstance(getattr(given, "ids", None), list) and hasattr(given, "attention_mask")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (_is_array(value) and value.ndim == 0)


def _as_id(value: Any, values: Sequence[Any]) -> int:
    value = _plain(value) if _is_array(value) and value.ndim == 0 else value
    if not isinstance(value, int) or isinstance(value, bool):
        raise _no_ids(values)
    return int(value)


def _no_ids(given: Any) -> InputError:
    return InputError(f"token ids {_short(given)}", "a flat list of integers", "Give one prompt's ids")


def _refused(given: Any) -> InputError:
    remedy = "Give the text itself"
    if isinstance(given, bytes | bytearray):
        remedy = "Decode it, such as given.decode('utf-8')"
    elif isinstance(given, PathLike | IOBase):
        remedy = "Read the file, with workbench.read_prompts(path)"
    elif _is_number(given):
        remedy = "Give ids in a list, such as [17]"
    what = "None" if given is None else f"{_short(given)}, of the type {type(given).__name__}"
    return InputError(f"the prompt {what}", "a text, a chat, token ids or what a tokenizer returns", remedy)


def _short(given: Any) -> str:
    """What was given, at most some 60 characters of it."""
    if isinstance(given, list | tuple):
        given = list(given[:5])
    said = ascii(given) if isinstance(given, bytes) else " ".join(repr(given).split("\n"))
    return said if len(said) <= 60 else said[:57] + "..."
