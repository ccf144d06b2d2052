"""Numbers in sentences."""

__all__ = ["counted"]


def counted(n: int, what: str) -> str:
    """How many there are of what a regular noun names: `1 prompt`, `2,219 prompts`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
