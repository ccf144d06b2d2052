"""How many examples a fuzz test draws: few in CI, many where FUZZ says so (`make fuzz`)."""

import os

__all__ = ["examples"]


def examples(few: int) -> int:
    """As many as CI draws, times the factor that FUZZ names."""
    return few * int(os.environ.get("FUZZ", "1"))
