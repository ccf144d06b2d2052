"""The explorer: the page where a researcher looks inside a model.

One prompt, one selection, every analysis of the catalog. `serve()` starts it, `show()` shows it in a notebook.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.explorer.web.window import Window

__all__ = ["serve", "show"]


def serve(**options: Any) -> None:
    """Start the explorer and stay until it is stopped; see `apps.explorer.web.server.serve` for the options."""
    from apps.explorer.web.server import serve as start

    start(**options)


def show(model: Any, prompt: Any = None, **options: Any) -> "Window":
    """The page on a model that you hold, in a cell or a tab; see `apps.explorer.web.window.show` for the options."""
    from apps.explorer.web.window import show as window

    return window(model, prompt, **options)
