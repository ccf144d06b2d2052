"""Analyses over many prompts, pass by pass, without a store: what a shard is computed by, and every study of a corpus.

Prompts of one length share a pass, so that nothing is padded. A pass that does not fit into memory is made in two
halves; a prompt that fails costs itself alone.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from workbench.analysis.run import Failure, Outcome, Progress, together, too_large
from workbench.batch.shards import batches
from workbench.errors import Cancelled, UnavailableError
from workbench.models.model import Model
from workbench.models.prompt import Tokens

__all__ = ["Halved", "walked"]

Halved = list[int]  # how many prompts each pass had that did not fit into memory


def walked(
    model: Model,
    prompts: Sequence[Tokens],
    analyses: Sequence[Sequence[Any]],
    *,
    batch_tokens: int,
    progress: Progress | None = None,
    allow_network: bool = False,
    halved: Halved | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """(row, outcome) of every prompt and each of its analyses, in the order of the prompts' passes.

    analyses: of each prompt, the same kinds for all. batch_tokens: most tokens of one pass; neighbours of one length
    share one. progress: the share of the prompts that are done, in between too; what it raises as `Cancelled` passes
    through. halved: is told of passes that did not fit.
    """
    model, done = model.fixed(), 0  # one look at the weights for all prompts, not one for each
    for part in batches([len(tokens) for tokens in prompts], batch_tokens):
        told = _within(progress, done, len(part), len(prompts))
        yield from _pass(model, prompts, analyses, part, told, allow_network, halved)
        done += len(part)


def _within(progress: Progress | None, done: int, n: int, total: int) -> Progress | None:
    return None if progress is None else lambda share: progress((done + share * n) / total)


def _pass(
    model: Model, prompts: Sequence[Tokens], analyses: Sequence[Sequence[Any]], part: range, told: Progress | None,
    allow_network: bool, halved: Halved | None,
) -> Iterator[tuple[int, Outcome]]:  # fmt: skip
    """One pass of some prompts; in two halves where memory does not suffice: what it had given is given once more."""
    rows = [prompts[i] for i in part]
    try:
        for row, outcome in together(
            model, rows, [analyses[i] for i in part], progress=told, allow_network=allow_network
        ):
            yield part[row], outcome
        return
    except Cancelled:
        raise
    except Exception as error:
        if not too_large(error):
            raise
        if halved is not None:
            halved.append(len(part))
        if len(part) == 1:
            known = UnavailableError(f"out of memory ({error})", "memory for one prompt", "Shorten it, or ask for less")
            for one in analyses[part[0]]:
                yield part[0], Outcome(one, Failure(one.name, one.title, known))
            return
    middle = len(part) // 2
    for half in (part[:middle], part[middle:]):
        yield from _pass(model, prompts, analyses, half, told, allow_network, halved)
