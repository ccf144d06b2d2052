"""The steps of an explanation, in their order, and what each will cost."""

from workbench.models.model import Sizes

__all__ = ["STEPS", "costs"]

STEPS = {
    "pairs": "gather pairs like the shown one",
    "where": "patch every state of the shown pair",
    "behaviour": "measure the model on test pairs",
    "survey": "replace every head and MLP, beside controls as large",
    "edges": "rank the edges between them",
    "circuit": "search the smallest circuit that is faithful enough",
    "test": "test it on pairs that nothing has seen, and what is left without it",
    "random": "test random circuits of its size",
    "parts": "read off what each part does",
}
_WORDS = 6.0  # for each token: whether other words make a sentence in its place
_SEARCHED = 12  # circuits that a search measures
_EDGE = 3.0  # forward passes that a pass with some edges takes


def costs(
    sizes: Sizes,
    n_tokens: int,
    *,
    pairs: int,
    tested: int,
    draws: int,
    directions: int,
    ranked: float,
    labelled: float,
) -> dict[str, float]:
    """Bare forward passes of the prompt that each step takes, by its name in `STEPS`. ranked: those to rank a pair;
    labelled: those to say which heads are induction heads and the like."""
    n_mlps = sizes.n_layers * bool(sizes.d_mlp)
    units = sizes.n_layers * sizes.n_heads + n_mlps * (1 + directions)
    return {
        "pairs": 4.0 * (2 * pairs + tested) + _WORDS * n_tokens,
        "where": 6 + 0.5 * sizes.n_layers * n_tokens,
        "behaviour": _EDGE * 2 * tested,
        "survey": 0.5 * 2 * pairs * units,
        "edges": max(10.0, ranked) * pairs,
        "circuit": _EDGE * _SEARCHED * pairs,
        "test": _EDGE * 2 * tested,
        "random": _EDGE * draws * tested,
        "parts": labelled + _EDGE * 10 * pairs,
    }
