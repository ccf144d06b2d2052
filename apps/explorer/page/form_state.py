"""What arrives from the controls of a form, and from the row of small multiples; see `state`."""

from typing import Annotated, Literal

from pydantic import Field

from apps.explorer.page.state import Name, StandingName, Store, Text, Typed, ViewName

__all__ = ["Moved", "Named", "TypedParam", "Wanted"]


class TypedParam(Store):
    """The control of a parameter was changed."""

    entry: ViewName
    name: Name
    value: Typed = None


class Moved(Store):
    """One of the controls of a display parameter was changed."""

    entry: StandingName
    name: Name
    control: Literal["token", "number", "slider", "choice"]
    value: Typed = None


Wanted = Annotated[dict[StandingName, Text], Field(max_length=1000)]  # what small multiples are to stand for
Named = Annotated[tuple[dict[Name, Typed], ...], Field(max_length=1000)]  # ids of controls
