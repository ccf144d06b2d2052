"""Loops that plain tensor code would spend too much memory or time on, each with its plain torch twin.

The compiled form (numba, on the CPU) and the twin (any device, no numba needed) agree to 1e-4 of a row; `compiled=None`
takes the compiled one where it can. Compilation is cached beside the code, or in numba's own cache directory where that
cannot be written. Both may be called from several threads at once.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from workbench.errors import InputError, SlowWarning, in_words

__all__ = ["Strongest", "is_compiled", "part_proximity", "proximity", "strongest"]

# Below this share of the target a part's proximity is taken to first order; measured on the default model at 64 to 1024
# tokens: no share of a row off by more than 1.2e-5 (at 1e-3, the first layer is off by 1e-3 at 1024 tokens).
_EPS = 1e-4
_FLOATS_AT_ONCE = 1 << 23  # of parts held at once: a few heads of a long prompt, or gathered pairs
_WORTH_THREADS = 1 << 16  # pairs of a head below which starting threads costs more than it saves


class Strongest(NamedTuple):
    """Kept parts of a causal table, by row and there the strongest first, and the total of every row.

    query, key, head: int32 `[part]`. share: float32 `[part]`, of the row's whole. total: float64 `[query]`, the sum of
    the row's proximities, kept or not.
    """

    query: torch.Tensor
    key: torch.Tensor
    head: torch.Tensor
    share: torch.Tensor
    total: torch.Tensor


@cache
def _numba() -> Any:
    """The compiled loops, or None where numba is not installed, finds no place for what it compiles, or refuses its
    settings (NUMBA_NUM_THREADS=0)."""
    try:
        from workbench.kernels import loops as compiled

        compiled.row_norms(np.zeros((1, 1), np.float32))  # what is compiled is also written
    except ImportError:
        return None
    except (RuntimeError, OSError, ValueError) as error:
        what, remedy = "numba cannot write its cache", "Name a folder for it in NUMBA_CACHE_DIR."
        if isinstance(error, ValueError):
            what, remedy = "numba refuses its settings", "Correct NUMBA_... in the environment."
        elif isinstance(error, OSError) and error.errno is None:  # its libraries, which memory may lack for
            what, remedy = "numba cannot be loaded", "Give the process more memory, or install numba anew."
        warnings.warn(
            f"Routes are computed without compiled loops, which takes longer: {what} ({in_words(error)}). {remedy}",
            SlowWarning,
            stacklevel=2,
        )
        return None
    return compiled


def is_compiled(like: torch.Tensor) -> bool:
    """Whether the compiled loops would serve this tensor."""
    return like.device.type == "cpu" and _numba() is not None


def part_proximity(
    part: torch.Tensor, target: torch.Tensor, p: int = 1, *, compiled: bool | None = None
) -> torch.Tensor:
    """`max(0, ||y||_p - ||y - z||_p)` of one part z of each target y: both `[..., d_model]`; float64 `[...]`.

    Compiled where p is 1 and part has as many rows as target, or one for all.
    """
    if compiled is None:
        compiled = p == 1 and part.shape[:-1] in ((), (1,), target.shape[:-1]) and is_compiled(target)
    if compiled:
        rows = (x.reshape(-1, x.shape[-1]).contiguous().numpy() for x in (part, target))
        return torch.from_numpy(_numba().row_proximity(*rows)).view(target.shape[:-1])
    if p == 1:
        return (target.abs() - (target - part).abs()).sum(-1, dtype=torch.float64).clamp(min=0)
    target, part = target.double(), part.double()
    return (target.norm(dim=-1) - (target - part).norm(dim=-1)).clamp(min=0)


def proximity(
    pattern: torch.Tensor,
    v: torch.Tensor,
    W_O: torch.Tensor,
    target: torch.Tensor,
    *,
    p: int = 1,
    compiled: bool | None = None,
) -> torch.Tensor:
    """How much closer each part `pattern v W_O` brings to its target: `max(0, ||y||_p - ||y - z||_p)`.

    pattern `[head, query, key]`, zero for keys after the query. v `[key, head, d_head]`. W_O `[head, d_head, d_model]`.
    target `[query, d_model]`. All float32. Returns float32 `[head, query, key]`, in units of the target's norm. Beside
    the result it holds parts of a few heads, `[head, key, d_model]`, and never one for each (query, key).
    """
    if p not in (1, 2):
        raise InputError(f"p={p}", "1 (the paper's norm) or 2", "Choose one of these")
    if compiled is None:
        compiled = is_compiled(pattern)
    some_heads = _l2_heads if p == 2 else (_compiled_heads if compiled else _torch_heads)
    pattern, target = pattern.contiguous(), target.contiguous()
    out = torch.empty(pattern.shape, dtype=torch.float32, device=pattern.device)
    at_once = max(1, _FLOATS_AT_ONCE // target.numel())
    for heads in torch.arange(pattern.shape[0]).split(at_once):
        these = slice(int(heads[0]), int(heads[-1]) + 1)
        some_heads(out[these], pattern[these], v[:, these].transpose(0, 1), W_O[these], target)
    return out


def _slopes(out: torch.Tensor, v: torch.Tensor, W_O: torch.Tensor, signs: torch.Tensor) -> None:
    """`<sign(target), part>` of every pair, through the heads' narrow middle. v `[head, key, d_head]`."""
    middle = (signs @ W_O.flatten(0, 1).T).unflatten(-1, W_O.shape[:2])
    torch.bmm(middle.transpose(0, 1), v.transpose(1, 2), out=out)


def _compiled_heads(
    out: torch.Tensor, pattern: torch.Tensor, v: torch.Tensor, W_O: torch.Tensor, target: torch.Tensor
) -> None:
    parts = torch.bmm(v, W_O)
    part_norms, target_norms = _numba().row_norms(parts.flatten(0, 1).numpy()), _numba().row_norms(target.numpy())
    if target.shape[0] <= v.shape[-1]:  # so few keys that the parts are no wider than the heads' middle
        out.copy_((target.sign() @ parts.flatten(0, 1).T).unflatten(-1, parts.shape[:2]).transpose(0, 1))
    else:
        _slopes(out, v, W_O, target.sign())
    n, loop = target.shape[0], _numba().exact_proximity
    norms = part_norms.reshape(parts.shape[:2])
    arrays = (out.numpy(), pattern.numpy(), parts.numpy(), norms, target.numpy(), target_norms)
    threads = torch.get_num_threads() if n * n > _WORTH_THREADS else 1
    if threads == 1:
        loop(*arrays, _EPS, 0, n)
        return
    edges = [round(n * (i / threads) ** 0.5) for i in range(threads + 1)]  # equal areas of a triangle
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(partial(loop, *arrays, _EPS, *span)) for span in pairwise(edges)]:
            done.result()


def _torch_heads(
    out: torch.Tensor, pattern: torch.Tensor, v: torch.Tensor, W_O: torch.Tensor, target: torch.Tensor
) -> None:
    """The same with gathered pairs, a bounded number at once."""
    parts = torch.bmm(v, W_O)
    _slopes(out, v, W_O, target.sign())
    large = pattern.abs() * parts.abs().sum(-1)[:, None] > _EPS * target.abs().sum(-1, keepdim=True)
    large &= out > 0
    out.mul_(pattern).clamp_(min=0)
    for pairs in large.nonzero().split(max(1, _FLOATS_AT_ONCE // target.shape[1])):
        head, query, key = pairs.unbind(-1)
        y = target[query]
        rest = (y - pattern[head, query, key, None] * parts[head, key]).abs_()
        out[head, query, key] = (y.abs_() - rest).sum(-1).clamp_(min=0)


def _l2_heads(
    out: torch.Tensor, pattern: torch.Tensor, v: torch.Tensor, W_O: torch.Tensor, target: torch.Tensor
) -> None:
    """Closed form: `||y|| - ||y - az||` is `(2a<y,z> - a^2||z||^2) / (||y|| + ||y - az||)`, free of cancellation."""
    squares = torch.bmm(v, W_O).pow_(2).sum(-1)[:, None]
    _slopes(out, v, W_O, target)
    norms = target.norm(dim=-1, keepdim=True)
    gained = 2 * pattern * out - pattern.pow(2) * squares
    rest = (norms.pow(2) - gained).clamp_(min=0).sqrt_()
    torch.div(gained, (norms + rest).clamp_(min=torch.finfo(torch.float32).tiny), out=out).clamp_(min=0)


def strongest(
    proximity: torch.Tensor,
    others: torch.Tensor,
    *,
    min_share: float,
    min_coverage: float,
    compiled: bool | None = None,
) -> Strongest:
    """Keep of each row of a causal table what is above a share, or needed to cover a part of the row.

    proximity: `[head, query, key]`, not negative. others: float64 `[query]`, what the row's other parts bring: a share
    is of both together. A part is kept if its share is above min_share, or if the stronger ones hold less than
    min_coverage of the row's proximities.
    """
    if compiled is None:
        compiled = is_compiled(proximity)
    if compiled:
        table, share, total = _numba().strongest_of_rows(
            proximity.contiguous().numpy(), others.double().numpy(), min_share, min_coverage
        )
        query, key, head = torch.from_numpy(table).unbind(-1)
        return Strongest(query, key, head, torch.from_numpy(share), torch.from_numpy(total))
    return _strongest_torch(proximity, others.double(), min_share, min_coverage)


def _strongest_torch(proximity: torch.Tensor, others: torch.Tensor, min_share: float, min_coverage: float) -> Strongest:
    """Row by row, so that only one row is ever sorted in double precision."""
    n_keys, rows, totals = proximity.shape[-1], [], []
    for query in range(proximity.shape[1]):
        row, place = proximity[:, query].flatten().sort(descending=True, stable=True)
        row = row.double()
        total, reached = row.sum(), row.cumsum(0)
        share = row / (total + others[query]).clamp(min=torch.finfo(torch.float64).tiny)
        wanted = ((reached - row < min_coverage * total) | (share > min_share)) & (row > 0)
        place = place[wanted]
        rows.append((torch.full_like(place, query), place % n_keys, place // n_keys, share[wanted]))
        totals.append(total)
    queries, keys, heads, shares = (torch.cat(column) for column in zip(*rows, strict=True))
    return Strongest(queries.int(), keys.int(), heads.int(), shares.float(), torch.stack(totals))
