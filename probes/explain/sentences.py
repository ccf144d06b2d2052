"""An explanation in words, each of which follows from its numbers."""

import numpy as np
import xarray as xr

from workbench.figures import head_name
from workbench.words import change, counted, hundredths

__all__ = ["NOTHING", "behaves", "matters", "named", "said", "unexplained"]

NOTHING = "Nothing found"
SMALL = 0.05
_LITTLE = 0.1  # a share that is left, of which nothing is said
_NAMED = 6  # heads and MLPs that the sentence names


def said(result: xr.Dataset) -> str:
    """The finding so far."""
    parts = [_behaviour(result)]
    if "gap" in result and behaves(result):
        parts += [_survey(result)]
        if "n_kept" in result:
            parts += [_circuit(result), _left(result)]
    return " ".join(filter(None, parts))


def behaves(result: xr.Dataset) -> bool:
    """Whether the model prefers the answers and the swap changes that, both by sign flips at 0.05, and by enough."""
    p = max(float(result["answer_p"]), float(result["gap_p"]))
    return p <= SMALL and float(result["gap"]) >= float(result.attrs["smallest"])


def matters(result: xr.Dataset) -> list[tuple[str, float, float]]:
    """Name, effect and corrected p of the heads and MLPs that matter, the largest effect first."""
    found = []
    for start in ("", "mlp_"):
        if f"{start}matters" not in result:
            continue
        for place in np.argwhere(result[f"{start}matters"].values == 1).tolist():
            name = head_name(*place) if not start else f"L{place[0]} MLP"
            effect, p = (float(result[f"{start}{what}"].values[tuple(place)]) for what in ("effect", "contrast_p"))
            found.append((name, effect, p))
    return sorted(found, key=lambda one: -abs(one[1]))


def _sizeable(result: xr.Dataset) -> list[tuple[str, float, float]]:
    """Those of them that move the answer by a hundredth of the difference or more: with enough pairs most are told
    from their controls, however little they do."""
    return [one for one in matters(result) if abs(one[1]) >= abs(float(result["gap"])) / 100]


def named(low: float, high: float) -> str:
    """` [0.70, 0.93]`, or nothing without an interval."""
    return f" [{hundredths(low)}, {hundredths(high)}]" if np.isfinite(low) and np.isfinite(high) else ""


def _ends(result: xr.Dataset, name: str) -> str:
    return named(*_bounds(result, name))


def _bounds(result: xr.Dataset, name: str) -> tuple[float, float]:
    low, high = (float(result[f"{name}_{end}"]) for end in ("low", "high"))
    return low, high


def _behaviour(result: xr.Dataset) -> str:
    if "prompt" not in result.sizes:
        return "The contrast is there, with an estimate of where it sits; pairs like it are not made yet."
    if "gap" not in result:
        return f"The model has not been measured yet: {result.sizes['prompt']} test pairs are made."
    n, right = result.sizes["prompt"], _right(result)
    first = (
        f"The model prefers the answer on {right} of {n} test pairs: {change(float(result['answer']))} logits on "
        f"average, {change(float(result['counterfactual']))} on the counterfactual prompts, a difference of "
        f"{hundredths(float(result['gap']))}{_ends(result, 'gap')}."
    )
    if behaves(result):
        return first
    return f"{NOTHING}: {_why_not(result)}. {first}"


def _why_not(result: xr.Dataset) -> str:
    """Which of the three does not hold: the answers are preferred, the swap changes that, and by enough."""
    prefers, changes = (f"(p = {float(result[name]):.2g})" for name in ("answer_p", "gap_p"))
    unclear = [float(result[name]) > SMALL for name in ("answer_p", "gap_p")]
    if all(unclear):
        return f"neither that it prefers the answers is clear {prefers}, nor that the swap changes that {changes}"
    if unclear[0]:
        return f"that it prefers the answers is not clear {prefers}, though the swap changes that {changes}"
    if unclear[1]:
        return f"it prefers the answers {prefers}, but that the swap changes that is not clear {changes}"
    return f"the difference is below {float(result.attrs['smallest']):g} logits"


def _right(result: xr.Dataset) -> int:
    """Test pairs on which the model prefers the answer."""
    return int((result["pair_model"].values > 0).sum())


def _survey(result: xr.Dataset) -> str:
    if "contrast_p" not in result:
        return ""
    found, n, units = matters(result), int(result.attrs["n_surveyed"]), int(result.attrs["n_units"])
    beside = f"(p at most {SMALL:g}, corrected for all, {n} other pairs)"
    if not found:
        return (
            f"{NOTHING}: none of {units} heads and MLPs, replaced by what they are on the counterfactual prompt, "
            f"matters more than controls that change as much {beside}."
        )
    some = ", ".join(f"{name} {change(effect)}" for name, effect, _ in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    small = len(found) - len(_sizeable(result))
    if small:
        more += f" ({small if small < len(found) else 'all'} of them by less than a hundredth of the difference)"
    verb = "matters" if len(found) == 1 else "matter"
    return (
        f"{len(found)} of {units} heads and MLPs, replaced by what they are on the counterfactual prompt, {verb} more "
        f"than controls that change as much {beside}: {some}{more}."
    )


def _circuit(result: xr.Dataset) -> str:
    n, every = int(result["n_kept"]), int(result.attrs["n_edges"])
    if not n and float(result.attrs.get("searched_gap", 1.0)) <= 0:
        return (
            f"{NOTHING} beyond that: on the {int(result.attrs['n_searched'])} pairs to search a circuit on, the swap "
            "does not lower the answer, so that there is nothing to be faithful to."
        )
    if not n:
        return f"{NOTHING} beyond that: no circuit of half of the {every} edges reaches f = {result.attrs['wanted']:g}."
    f = float(result["faithfulness"])
    heads = counted(int(result.attrs["n_circuit_heads"]), "head")
    mlps = counted(int(result.attrs["n_circuit_mlps"]), "MLP")
    text = (
        f"{n} of {every} edges ({n / every:.2%}), through {heads} and {mlps}, keep {hundredths(f)}"
        f"{_ends(result, 'faithfulness')} of the difference on {result.sizes['prompt']} pairs that nothing had seen"
    )
    p = float(result["p"]) if "p" in result else np.nan
    if not np.isfinite(p):
        return f"{text}."
    best = float(result["random_faithfulness"].max())
    text += f"; random circuits of this size keep at most {hundredths(best)} (p = {p:.2g})."
    return text if p <= SMALL else f"{NOTHING} beyond that: {text}"


def _left(result: xr.Dataset) -> str:
    if not int(result["n_kept"]) or "holds" not in result:
        return ""
    failing = int((result["pair_holds"].values == 0).sum())
    n = int(np.isfinite(result["pair_holds"].values).sum())
    half = f"less than half on {failing} of {n} pairs" if failing else f"half or more on all {n} pairs"
    rest = hundredths(float(result["completeness"]))
    return f"Without these edges {rest}{_ends(result, 'completeness')} is left; the circuit keeps {half}."


def unexplained(result: xr.Dataset) -> list[str]:
    """What the explanation leaves out, in sentences."""
    if "holds" not in result or not int(result["n_kept"]):
        return ["No circuit was found, so nothing is explained."]
    found = [*_chance(result), *_not_kept(result), *_rival(result)]
    holds, n = result["pair_holds"].values, result.sizes["prompt"]
    failing, known = int((holds == 0).sum()), int(np.isfinite(holds).sum())
    if failing:
        found.append(f"On {failing} of {known} pairs the circuit keeps less than half.")
    if known < n:
        found.append(f"On {n - known} of {n} pairs the swap does not lower the answer: there is nothing to keep.")
    wrong = n - _right(result)
    if wrong:
        found.append(f"On {wrong} of {n} pairs the model itself prefers the wrong answer.")
    used = {str(name) for name in result.attrs.get("circuit_parts", "").split()}
    outside = [name for name, _, _ in _sizeable(result) if name.replace(" ", "") not in used]
    if outside:
        more = f" and {len(outside) - _NAMED} more" if len(outside) > _NAMED else ""
        names = f"{', '.join(outside[:_NAMED])}{more}"
        one = len(outside) == 1
        found.append(f"{names} {'matters' if one else 'matter'} in the survey and {'is' if one else 'are'} not in it.")
    return found or ["Of what was measured here nothing is left out."]


def _chance(result: xr.Dataset) -> list[str]:
    """Whether random circuits do as well."""
    if "p" not in result or not float(result["p"]) > SMALL:
        return []
    p = float(result["p"])
    return [f"Too many random circuits of this size keep as much (p = {p:.2g}) to tell these edges from any."]


def _not_kept(result: xr.Dataset) -> list[str]:
    """What the edges alone keep too little of, or do too much of; nothing where that rounds to nothing."""
    f, wanted = float(result["faithfulness"]), float(result.attrs["wanted"])
    if round(f, 2) == 1:
        return []
    (low, _), ends = _bounds(result, "faithfulness"), f"{hundredths(f)}{_ends(result, 'faithfulness')}"
    if f > 1:
        may = "" if low > 1 else "may "
        return [f"The edges alone {may}do more than the model ({ends}): others {may}hold them back."]
    less = f", less than the {wanted:g} that was searched" if f < wanted else ""
    if round(f, 2) < 0:  # "125% is not carried" is no share
        return [f"These edges alone carry nothing of the difference and work against it: they keep {ends}{less}."]
    return [f"{1 - f:.0%} of the difference is not carried by these edges: they keep {ends}{less}."]


def _rival(result: xr.Dataset) -> list[str]:
    """What the others do without these edges, said for sure where the interval allows it."""
    rest, (low, high) = float(result["completeness"]), _bounds(result, "completeness")
    ends = f"{hundredths(rest)}{named(low, high)}"
    if rest > _LITTLE:
        verb = "are" if low > 0 else "may be"
        return [f"Other edges keep {ends} of it when these are taken out: they {verb} another way."]
    if rest < -_LITTLE:
        verb = "is" if high < 0 else "may be"
        return [f"Without them the answer {verb} worse off than on the counterfactual prompts ({ends}): others work "
                "against it."]  # fmt: skip
    return []
