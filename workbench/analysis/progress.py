"""Progress of work that is done in parts: every part says from 0 to 1 how far it is."""

from workbench.analysis.run import Progress

__all__ = ["part"]


def part(progress: Progress | None, first: float, last: float) -> Progress | None:
    """What a part reports to that takes the whole from the share `first` to `last`; None where nobody listens."""
    if progress is None:
        return None
    return lambda done: progress(first * (1 - done) + last * done)
