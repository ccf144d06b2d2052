"""Fit one readout probe: which token stands at t + offset, from the state at t.

    log p(c) = x W (k(e_c)) + b_c - log sum over c'      x: the state, its dimensions standardised
                                                         e_c: the token's row of the unembedding, k: whitening

The map W (d_model x d_model) and a bias for each class are learned by cross entropy. A class is a token that occurs in
the corpus; through its embedding a token that was never a training target can still be named. The start is closed form
("gen"): states of a class are normal around a linear map of its embedding, with one covariance for all classes. Then
torch's Adam with a cosine schedule; the gradient is written out, so that the two large products can run in bfloat16
where the processor has instructions for it.

The plain probe of the paper is the option beside it (`fit_linear`): log p(c) = x W_c - log sum, a column of W for each
class, no bias, no embedding, from zero. It can name only classes that it was trained on and is some 13 times larger.
"""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from probes.erasure.trained.recipe import Recipe
from workbench.pauses import pause
from workbench.processor import Processor, this_processor

__all__ = [
    "bfloat16_wins",
    "closed_form",
    "fast_dtype",
    "fit",
    "fit_linear",
    "gradients",
    "linear_gradient",
    "log_probs",
    "whitening",
]

_ROWS = 1024  # states scored together
_LOGITS = 2**23  # and at most as many logits, 32 MB: fewer rows for a large vocabulary
_STEP_ROWS = 512  # of a step, whose probabilities are held together
_BETAS = (0.9, 0.99)
# Products (m, k, n) and the most of float32's time that bfloat16 may take. A plain loop takes 60 times as long at the
# first, some 10 ms: it never meets the second, where it would take seconds.
_TRIALS = (((64, 256, 256), 3.0), ((256, 512, 4096), 0.8))


def whitening(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(centre, K) that make rows `[class, d_model]` white: `(rows - centre) @ K` has unit covariance; K symmetric."""
    centre = rows.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((rows - centre).T.double()))
    scale = values.clamp_min(values.max() * 1e-6).rsqrt()
    return centre, ((vectors * scale) @ vectors.T).float()


def closed_form(
    x: torch.Tensor, y: torch.Tensor, white: torch.Tensor, x_val: torch.Tensor, y_val: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The start: W `[d_model, d_model]` and b `[class]` of the classes' normal densities, with a temperature.

    x: standardised states `[token, d_model]`; y: class indices; white: whitened rows `[class, d_model]`. The
    temperature is the one that names `y_val` from `x_val` best (at most 3,000 rows are used).
    """
    d, n = x.shape[1], len(x)
    counts = torch.bincount(y, minlength=len(white)).float()
    e_mean, x_mean = counts @ white / n, x.mean(0)
    gram, cross = (torch.zeros(d, d, dtype=torch.float32) for _ in range(2))
    for part in torch.arange(n).split(16_384):
        e = white[y[part]] - e_mean
        gram += e.T @ e
        cross += e.T @ (x[part] - x_mean)
    to_state = torch.linalg.solve(gram + 1e-3 * n * torch.eye(d, dtype=torch.float32), cross)  # embedding to state
    rest = torch.zeros(d, d, dtype=torch.float32)
    for part in torch.arange(n).split(16_384):
        gap = x[part] - x_mean - (white[y[part]] - e_mean) @ to_state
        rest += gap.T @ gap
    rest = rest / n
    rest += (0.01 * rest.diagonal().mean() + 1e-6) * torch.eye(d, dtype=torch.float32)
    W = torch.linalg.solve(rest, to_state.T)
    centred = white - e_mean
    quadratic = -0.5 * ((centred @ (to_state @ W)) * centred).sum(1) - white @ (W.T @ x_mean)
    prior = ((counts + 0.5) / (counts + 0.5).sum()).log()
    tau = _temperature(x_val[:3000], y_val[:3000], W, quadratic, prior, white)
    return tau * W, tau * quadratic + prior


def _temperature(
    x: torch.Tensor,
    y: torch.Tensor,
    W: torch.Tensor,
    quadratic: torch.Tensor,
    prior: torch.Tensor,
    white: torch.Tensor,
) -> float:
    scores = x @ W @ white.T + quadratic
    loss = lambda tau: torch.nn.functional.cross_entropy(tau * scores + prior, y)
    return min((float(t) for t in torch.logspace(-1.5, 0.3, 19)), key=lambda t: float(loss(t)))


def gradients(
    x: torch.Tensor, y: torch.Tensor, W: torch.Tensor, b: torch.Tensor, white: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the mean cross entropy (nats) by W and b. white may be bfloat16: the large products follow it."""
    grad_b, back = torch.zeros_like(b), []
    for part, wanted in zip((x @ W).to(white.dtype).split(_STEP_ROWS), y.split(_STEP_ROWS), strict=True):
        p = (part @ white.T).float().add_(b).softmax(-1)
        p[torch.arange(len(p)), wanted] -= 1
        grad_b += p.sum(0)
        back.append(p.to(white.dtype) @ white)
    return x.T @ torch.cat(back).float() / len(x), grad_b / len(x)


def fit(
    x: torch.Tensor,
    y: torch.Tensor,
    white: torch.Tensor,
    start: tuple[torch.Tensor, torch.Tensor],
    recipe: Recipe,
    progress: Callable[[float], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """W and b after training. x: float16 or float32 standardised states `[token, d_model]`; y: class indices."""
    products = white.to(_dtype(recipe))
    W, b = _descend(start, lambda at, W, b: gradients(x[at].float(), y[at], W, b, products), len(x), recipe, progress)
    return W, b


def linear_gradient(
    x: torch.Tensor, y: torch.Tensor, W: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Gradient of the mean cross entropy (nats) by W `[d_model, class]`, for logits x W."""
    columns, total = W.to(dtype), torch.zeros_like(W)
    for part, wanted in zip(x.to(dtype).split(_STEP_ROWS), y.split(_STEP_ROWS), strict=True):
        p = (part @ columns).float().softmax(-1)
        p[torch.arange(len(p)), wanted] -= 1
        total += (part.T @ p.to(dtype)).float()
    return total / len(x)


def fit_linear(
    x: torch.Tensor,
    y: torch.Tensor,
    n_classes: int,
    recipe: Recipe,
    progress: Callable[[float], None] | None = None,
) -> torch.Tensor:
    """W `[d_model, class]` of the plain softmax probe after training from zero. x, y: as for `fit`."""
    dtype, start = _dtype(recipe), torch.zeros(x.shape[1], n_classes, dtype=torch.float32)
    step = lambda at, W: (linear_gradient(x[at].float(), y[at], W, dtype),)
    return _descend((start,), step, len(x), recipe, progress)[0]


def _dtype(recipe: Recipe) -> torch.dtype:
    return fast_dtype() if recipe.dtype == "auto" else getattr(torch, recipe.dtype)


def _descend(
    start: tuple[torch.Tensor, ...],
    gradient: Callable[..., Any],
    n: int,
    recipe: Recipe,
    progress: Callable[[float], None] | None,
) -> tuple[torch.Tensor, ...]:
    """Values after some epochs of Adam with a cosine schedule. gradient: (indices, *values) -> gradients."""
    values = tuple(value.clone() for value in start)
    generator = torch.Generator().manual_seed(recipe.seed)
    batch = min(recipe.batch, n)
    per_epoch = n // batch
    total = recipe.epochs * per_epoch
    adam = torch.optim.Adam(values, lr=recipe.lr, betas=_BETAS)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=total)
    for step in range(total):
        pause()
        if step % per_epoch == 0:
            order = torch.randperm(n, generator=generator)
        at = order[(step % per_epoch) * batch :][:batch]
        for value, slope in zip(values, gradient(at, *values), strict=True):
            value.grad = slope
        adam.step()
        cosine.step()
        if progress is not None:
            progress((step + 1) / total)
    adam.zero_grad()
    return values


def fast_dtype(processor: Processor | None = None) -> torch.dtype:
    """bfloat16 where this processor multiplies in it, else float32: the same answer every time on one machine.

    processor: instead of this machine's. Only where torch does not tell what the processor can do, it is measured,
    once in a process.
    """
    quick = (processor or this_processor()).bfloat16
    return torch.bfloat16 if (_bfloat16_wins() if quick is None else quick) else torch.float32


@cache
def _bfloat16_wins() -> bool:
    return bfloat16_wins(_seconds)


def bfloat16_wins(seconds: Callable[[torch.dtype, tuple[int, int, int]], float]) -> bool:
    """Whether bfloat16 takes at most 0.8 of float32's time; after a first slow answer nothing larger is tried.

    seconds: `(number format, (m, k, n)) ->` time of one product.
    """
    for shape, limit in _TRIALS:
        best = dict.fromkeys((torch.float32, torch.bfloat16), math.inf)
        for _ in range(3):  # in turns, and the best of each: other work on the machine slows both
            for dtype in best:
                best[dtype] = min(best[dtype], seconds(dtype, shape))
        if best[torch.bfloat16] > limit * best[torch.float32]:
            return False
    return True


def _seconds(dtype: torch.dtype, shape: tuple[int, int, int]) -> float:
    left, right = torch.ones(shape[:2], dtype=dtype), torch.ones(shape[1:], dtype=dtype)
    started = time.perf_counter()
    left @ right
    return time.perf_counter() - started


def log_probs(
    x: torch.Tensor, W: torch.Tensor, b: torch.Tensor, rows: torch.Tensor | None, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Natural logarithm of the probability of each target, whether it is the top class, and the top class.

    x: states `[token, d_model]`; W into the space of rows `[class, d_model]`, or `[d_model, class]` where rows is None;
    y: class indices, -1 where there is none (NaN then). A few hundred rows of logits exist at any time.
    """
    own, hit, best = [], [], []
    together = min(_ROWS, max(16, _LOGITS // len(b)))
    for part, wanted in zip(x.split(together), y.split(together), strict=True):
        logits = part.float() @ W
        logits = (logits if rows is None else logits @ rows.T) + b
        top, which = logits.max(1)
        total = top + (logits - top[:, None]).exp_().sum(1).log_()
        value = logits.gather(1, wanted.clamp_min(0)[:, None])[:, 0] - total
        own.append(value.masked_fill(wanted < 0, torch.nan))
        hit.append(which == wanted)
        best.append(which)
    return torch.cat(own), torch.cat(hit), torch.cat(best)
