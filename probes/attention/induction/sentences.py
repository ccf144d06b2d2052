"""What induction scores say in words, each of which follows from the numbers."""

import numpy as np
import xarray as xr

from workbench.figures import head_name
from workbench.reach import smallest_flip_p, too_few
from workbench.words import counted

__all__ = ["NO_REPEATS", "on_prompt", "on_stimulus", "strongest"]

NO_REPEATS = "No token of this prompt last occurred three or more places earlier, so there is nothing to score."


def strongest(scores: xr.DataArray, among: np.ndarray | None = None) -> tuple[int, int] | None:
    """(layer, head) of the largest known score (layer, head), of those that `among` marks; None without any."""
    known = scores.notnull().values
    known = known if among is None else known & among
    if not known.any():
        return None
    layer, head = np.unravel_index(np.where(known, scores.values, -np.inf).argmax(), known.shape)
    return int(scores["layer"][layer]), int(scores["head"][head])


def on_stimulus(result: xr.Dataset, q: float, floor: float) -> str:
    """How many heads pass, and the one of the largest score with its interval. q, floor: what a head must pass."""
    label, scores = result["is_induction_head"].values.astype(bool), result["induction_score"]
    n, known = int(label.sum()), int(scores.notnull().sum())
    top = strongest(scores, label if n else None)
    if top is None:
        return "No head is scored: none sees, in every sequence, what followed the last time."
    here = result.sel(layer=top[0], head=top[1])
    score, low, high = (float(here[f"induction_score{end}"]) for end in ("", "_low", "_high"))
    ends = f"{low:.0%}", f"{high:.0%}"
    interval = "narrower than one percent" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
    share = f"{score:.0%} of its attention to what followed the current token the last time (95 % interval {interval}, "
    share += f"n = {result.attrs.get('n_sequences', 0)} sequences)"
    heads, passed = counted(known, "head"), f"an effect above {floor:g} at q of at most {q:g}"
    unscored = f" {scores.size - known} more are not scored: they do not see that key." if known < scores.size else ""
    unscored += _reach(int(result.attrs.get("n_sequences", 0)), known, q)
    if n == 0:
        return (
            f"None of {heads} is an induction head ({passed}): the largest score is that of {head_name(*top)}, "
            f"which gives {share}.{unscored}"
        )
    verb = "is an induction head" if n == 1 else "are induction heads"
    which = "It is" if n == 1 else "The strongest is"
    return f"{n} of {heads} {verb} ({passed}). {which} {head_name(*top)}, which gives {share}.{unscored}"


def _reach(n: int, known: int, q: float) -> str:
    """What so many sequences cannot say of so many heads: with 16, of more than 3,276, no single one."""
    said = too_few(smallest_flip_p(n, known), known, f"{n} sequences", "head", "Take 17 or more", q) if n else ""
    return f" {said}" if said else ""


def on_prompt(result: xr.Dataset) -> str:
    """The head of the largest score on the prompt, beside other keys of the same rows; that one text has no test."""
    count, scores = int(result["n_repeats"]), result["induction_score"]
    if count == 0:
        return NO_REPEATS
    tokens = f"{count} tokens" if count > 1 else "one token"
    tokens += " of this prompt that last occurred three or more places earlier"
    top = strongest(scores)
    if top is None:
        return f"No head sees what followed the {tokens}, so there is nothing to score."
    score, others = (float(result[f"induction_score{end}"].sel(layer=top[0], head=top[1])) for end in ("", "_null"))
    seen = int(result["n_seen"].sel(layer=top[0]))
    where = f"the {tokens}" if seen == count else f"{seen} of the {tokens} (its window hides the key of the others)"
    return (
        f"At {where}, {head_name(*top)} looks most at what followed the last time: {score:.1%} of its attention, "
        f"and {others:.1%} on average at each other key, leaving out the first token, the token itself, the one before "
        "it and its last occurrence. One text (n = 1), so no interval and no test."
    )
