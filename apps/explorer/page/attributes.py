"""Attributes of elements whose names are none of Python's, such as `aria-label`."""

from collections.abc import Mapping
from typing import Any

__all__ = ["attributes"]


def attributes(named: Mapping[str, str | int]) -> dict[str, Any]:
    """To be given behind `**`: Dash takes any `aria-` and `data-` attribute, which its signatures do not say."""
    return dict(named)
