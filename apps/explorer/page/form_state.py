"""What arrives from the controls of a form, and from the row of small multiples; see `state`."""

from typing import Annotated, Literal

from pydantic import Field

from apps.explorer.page.state import Name, StandingName, Store, Text, Typed, ViewName

__all__ = ["Moved", "Named", "TypedParam", "Wanted"]


class TypedParam(Store):
    """The control of a parameter was changed. also: the controls of the form that were changed before it, with what
    they hold: an answer to one of those may still be on its way, and this one's must not forget it."""

    entry: ViewName
    name: Name
    value: Typed = None
    also: Annotated[dict[Name, Typed], Field(max_length=1000)] = Field(default_factory=dict)


class Moved(Store):
    """One of the controls of a display parameter was changed."""

    entry: StandingName
    name: Name
    control: Literal["token", "number", "slider", "choice"]
    value: Typed = None


Wanted = Annotated[dict[StandingName, Text], Field(max_length=1000)]  # what small multiples are to stand for
Named = Annotated[tuple[dict[Name, Typed], ...], Field(max_length=1000)]  # ids of controls
