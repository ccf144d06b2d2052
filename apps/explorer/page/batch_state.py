"""What arrives from the panel of batches, as `state` says of the rest of the page."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from apps.explorer.page.state import Count, Store, Word

__all__ = ["BatchAsked", "Chosen", "Column", "Grouping", "Part", "Point", "Rows"]

Part = Literal["results", "prompts", "failures"]
Grouping = Literal["prompt", "group", "model", "document"]
Column = Annotated[str, Field(strict=True, max_length=1000)] | None  # of the table, or ANALYSIS.VARIABLE


class Chosen(Store):
    """A run was chosen in the list."""

    batch: Word


class BatchAsked(Store):
    """A run is to go on, or to stop."""

    resume: Word | None = None
    halt: Word | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "BatchAsked":
        if (self.resume is None) == (self.halt is None):
            raise ValueError("a run that is resumed or cancelled")
        return self


class _Row(Store):
    row: Count


Rows = Annotated[tuple[_Row, ...], Field(max_length=10)] | None  # chosen in the table


class _Pointed(Store):
    customdata: Count


class Point(Store):
    """A click on a point: the row of the table that it stands for."""

    points: Annotated[tuple[_Pointed, ...], Field(min_length=1, max_length=10)]
