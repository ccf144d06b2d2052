"""The explorer: the page where a researcher looks inside a model.

One prompt, one selection, every analysis of the catalog. `serve()` starts it.
"""

from typing import Any

__all__ = ["serve"]


def serve(**options: Any) -> None:
    """Start the explorer and stay until it is stopped; see `apps.explorer.web.server.serve` for the options."""
    from apps.explorer.web.server import serve as start

    start(**options)
