"""Numbers in sentences."""

__all__ = ["ROUNDING", "change", "counted", "hundredths", "signed"]

ROUNDING = 5e-6  # logits or nats: what passes in float32 differ by when nothing was changed


def counted(n: int, what: str) -> str:
    """How many there are of what a regular noun names: `1 prompt`, `2,219 prompts`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def change(value: float) -> str:
    """A change of logits or nats with its sign, in hundredths: `+0.25`; one too small for these by its first digits,
    `-0.0031`; and none, `0`, as what is rounding. Never `-0.00`, which says neither."""
    if abs(value) < ROUNDING:
        return "0"
    hundredths = f"{value:+.2f}"
    return hundredths if float(hundredths) else f"{value:+.2g}"


def signed(value: float, digits: int) -> str:
    """A value with its sign and so many digits behind the point, `+0.0312`; what rounds to nothing has no sign."""
    return f"{value:+.{digits}f}" if round(float(value), digits) else f"{0:.{digits}f}"


def hundredths(value: float) -> str:
    """A value as text, `-3.57`; what rounds to nothing has no sign."""
    return f"{round(float(value), 2) + 0.0:.2f}"
