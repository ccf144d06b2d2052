"""The explorer: the page where a researcher looks inside a model.

One prompt, one selection, every analysis of the catalog. `serve()` starts it.
"""

from typing import Any

__all__ = ["serve"]


def serve(**options: Any) -> None:
    """Start the explorer and stay until it is stopped; see `apps.explorer.server.serve` for the options."""
    from apps.explorer.server import serve as start  # dash and torch are loaded only when a page is wanted

    start(**options)
