"""HTML pages from the templates that lie beside the code that fills them. Whatever goes in is escaped."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["render"]


def render(name: str, **values: Any) -> str:
    """The template `name`, a path below `apps/`, with its values; a name that the template lacks is an error."""
    pages = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=pages, autoescape=True, undefined=StrictUndefined).get_template(name).render(values)
