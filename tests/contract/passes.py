"""How an analysis watches: of those that share the pass of a prompt, or bring a stimulus for one."""

from typing import Any

import pytest
import torch

from tests.contract.case import LONG, SHORT, Case, hooks_left, plain_logits
from workbench.models.hooks import RESID_POST, RESID_PRE
from workbench.models.prompt import tokenise
from workbench.observation import Need, keep, observe


def pieces(kept: Any) -> list[torch.Tensor]:
    """What was kept of a need: one tensor, or one per layer where its length differs from layer to layer."""
    return list(kept) if isinstance(kept, tuple) else [kept]


def equal_needs_are_one(case: Case) -> None:
    """Asked twice, it needs the same: equal, with one hash, and in the same order."""
    first, again = (case.asked()[1] for _ in range(2))
    assert len(first) > 0 and first == again and list(map(hash, first)) == list(map(hash, again))
    seen = observe(case.model, case.asked()[0][:2], [*first, *again], **_first_two(case))
    assert len(seen.results) == len(set(first))


def _first_two(case: Case) -> dict[str, Any]:
    return {"fields": {name: values[:2] for name, values in case.asked()[2].items()}, "positions": "none"}


def watching_leaves_the_logits_bit_equal(case: Case) -> None:
    """What is kept is float32 or integers."""
    tokens, needs, fields = case.asked()
    seen = observe(case.model, tokens, needs, fields=fields, positions="all")
    kept = [part for need in needs for part in pieces(seen[need])]
    assert kept and all(part.dtype in (torch.float32, torch.int64, torch.int32, torch.bool) for part in kept)
    step = max(1, 4096 // max(len(t) for t in tokens))  # the batches that observe() makes
    bare = torch.cat([plain_logits(case.model, tokens[i : i + step]) for i in range(0, len(tokens), step)])
    assert torch.equal(torch.stack(seen.logits), bare)


def reducers_return_fresh_tensors(case: Case) -> None:
    """A view of an activation would keep the whole of it alive until the end of the pass. Of every pass of a study."""
    assert case.result is not None and case.views_kept == []


def boom(resid: torch.Tensor, site: Any) -> torch.Tensor:
    """A bug in a reducer."""
    raise ZeroDivisionError("a bug in a probe")


def no_hook_is_left_after_a_bug_in_a_reducer(case: Case) -> None:
    """Of another analysis in the same pass."""
    tokens, needs, fields = case.asked()
    before, bare = hooks_left(case.model), plain_logits(case.model, tokens[:1])
    with pytest.raises(ZeroDivisionError):
        observe(case.model, tokens, [*needs, Need((RESID_POST,), boom, layers=(1,))], fields=fields)
    assert hooks_left(case.model) == before
    assert torch.equal(plain_logits(case.model, tokens[:1]), bare)


def a_restart_from_a_layer_equals_the_full_run(case: Case) -> None:
    """Bit for bit."""
    tokens, needs, fields = case.asked()
    tokens, fields = tokens[:2], {k: v[:2] for k, v in fields.items()}
    state = Need((RESID_PRE,), keep, dims="pos d_model", layers=(1,))
    full = observe(case.model, tokens, [*needs, state], fields=fields)
    later = [need for need in needs if not need.layered or need.layers is None or max(need.layers) >= 1]
    restarted = observe(case.model, tokens, later, fields=fields, start=(1, full[state][0]))
    assert all(map(torch.equal, restarted.logits, full.logits))
    for need in later:
        expected = pieces(full[need])
        if need.layered:
            layers = need.layers or range(case.model.sizes.n_layers)
            by_layer = expected if need.ragged else list(expected[0])
            expected = [part for part, layer in zip(by_layer, layers, strict=True) if layer >= 1]
        for got, part in zip(restarted[need] if need.layered else [restarted[need]], expected, strict=True):
            torch.testing.assert_close(got, part, rtol=0, atol=0, equal_nan=True)


def a_longer_neighbour_changes_nothing(case: Case) -> None:
    """Padding enters no number. Another batch shape re-associates sums: 1e-4 of the largest value, 1e-6 seen."""
    short, long = tokenise(case.model, SHORT), tokenise(case.model, LONG)
    needs = case.analysis.needs(case.model, short)
    alone, beside = observe(case.model, [short], needs), observe(case.model, [short, long], needs).prompt(0)
    both = observe(case.model, [short, long], needs)
    for need in (need for need in needs if not need.ragged):  # how many edges a row keeps is its author's to test
        got, expected = beside[need], alone[need]
        scale = float(expected.float().nan_to_num().abs().max()) or 1.0
        torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-4, equal_nan=True)
        for axis, dim in enumerate(need.dims, start=1 + need.layered):
            if dim in ("pos", "query", "key") and not (dim == "pos" and need.positions is not None):
                row = both[need].select(int(need.layered), 0).narrow(axis - 1, len(short), len(long) - len(short))
                assert torch.isnan(row).all() if row.is_floating_point() else (row == -1).all()
