"""Addresses without what must not be shown: passwords, keys and tokens in them."""

import re
from urllib.parse import parse_qsl, unquote

__all__ = ["without_secrets"]

_HIDDEN = "***"


def without_secrets(text: str, address: str | None = None) -> str:
    """A text in which what is secret in an address is hidden. address: the text itself unless given."""
    for secret in _secrets(text if address is None else address):
        text = text.replace(secret, _HIDDEN)
    return text


def _secrets(address: str) -> list[str]:
    """What stands between // and @, and behind ?, longest first."""
    rest = address.partition("://")[2]
    before, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    found = [before, *before.split(":")[1:]] if at and ":" in before else []
    query = address.partition("?")[2].partition("#")[0]
    found += [query, *(value for _, value in parse_qsl(query))]
    found += [unquote(one) for one in found]
    return sorted({one for one in found if one}, key=len, reverse=True)
