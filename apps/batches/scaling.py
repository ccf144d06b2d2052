"""What analyses cost in a batch, counted and timed: per token, and as prompts, tokens and layers grow.

    python -m apps.batches.scaling

Operations are those of matrix products, as torch counts them; times are CPU seconds of this process, which others on
the machine disturb least. Layers grow in models of the default one's shape with random weights.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from probes import CATALOG
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.run import together
from workbench.batch.values.rows import Reduction
from workbench.loading import bundled
from workbench.loading.pretrained import load, wrap
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.observation import observe, predict_bytes

__all__ = ["ANALYSES", "Cost", "cost_of", "main", "model_of"]

ANALYSES = ("surprisal", "logit-lens", "induction-on-prompt", "attention-sinks", "flow-routes")
_SIZES = ((4, 32), (16, 32), (4, 128), (16, 128))  # prompts, tokens of each
_LAYERS = (6, 12, 24)


class Cost(NamedTuple):
    """Of an analysis on a batch of prompts, its pass included. flops, seconds: of the whole; kept, written: bytes of a
    prompt while the pass runs and in the store. predicted: in bare passes, as `plan` reckons."""

    flops: float
    seconds: float
    kept: int
    written: int
    predicted: float


def cost_of(model: Model, name: str | None, n_prompts: int, length: int) -> Cost:
    """Of an analysis by its name with its defaults; of the bare observed pass where it is None."""
    tokens = [_prompt(model, length, row) for row in range(n_prompts)]
    if name is None:
        work: Callable[[], Any] = lambda: observe(model, tokens, positions="last")
        return Cost(_flops(work), _seconds(work), 0, 0, 1.0)
    analysis: OnPrompt = CATALOG.get(name)()
    work = lambda: list(together(model, tokens, [[analysis]] * n_prompts))
    kept = predict_bytes(model.sizes, list(analysis.needs(model, tokens[0])), 1, length)
    row, _ = Reduction("mean").row(analysis.averaged(analysis.run(model, tokens[0])))
    written = sum(variable.nbytes for variable in row.values())
    return Cost(_flops(work), _seconds(work), kept, written, 1 + analysis.cost(model.sizes, length))


def _prompt(model: Model, length: int, row: int) -> Tokens:
    draw = torch.Generator().manual_seed(row)
    return tokenise(model, Prompt.ids(torch.randint(10, model.sizes.d_vocab, (length,), generator=draw).tolist()))


def _flops(work: Callable[[], Any]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _seconds(work: Callable[[], Any]) -> float:
    """CPU seconds, the better of two; the count before was its warm-up."""
    taken = []
    for _ in range(2):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def model_of(n_layers: int) -> Model:
    """A model of the default one's shape with random weights and so many layers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(bundled.ensure())
    config.num_hidden_layers = n_layers
    torch.manual_seed(0)
    return wrap(AutoModelForCausalLM.from_config(config).eval(), None, name=f"{n_layers} layers")


def rows(model: Model, about: str, sizes: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Lines of a table, one an analysis and size."""
    for n_prompts, length in sizes:
        bare = cost_of(model, None, n_prompts, length)
        n = n_prompts * length
        yield f"| the pass alone | {about}{n_prompts} x {length} | {bare.flops / n / 1e6:.0f} | 1 | 1 | | |"
        for name in ANALYSES:
            found = cost_of(model, name, n_prompts, length)
            yield (
                f"| {name} | {about}{n_prompts} x {length} | {found.flops / n / 1e6:.0f} | "
                f"{found.seconds / bare.seconds:.2f} | {found.predicted:.2f} | {found.kept / length / 1e3:.1f} | "
                f"{found.written / 1e3:.1f} |"
            )


def main() -> None:
    """Print the table."""
    print("| analysis | prompts x tokens | MFLOP a token | time / pass | predicted | kB kept a token | kB written |")
    print("|---|---|---|---|---|---|---|")
    for line in rows(load(bundled.NAME), "", _SIZES):
        print(line, flush=True)
    for n_layers in _LAYERS:
        for line in rows(model_of(n_layers), f"{n_layers} layers, ", ((4, 64),)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
