"""`python -m apps.calibration --minutes 5`: as much of the calibration as fits, from where it was left."""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from apps.calibration.checks import KINDS, PROMPTS, count_checks, random_prompt
from apps.calibration.counts import Counts
from apps.calibration.coverage import FAMILIES, SIZES, count_coverage, count_documents, count_rare
from apps.calibration.labels import count_labels
from apps.calibration.table import page
from workbench.loading.pretrained import load, wrap
from workbench.models.model import Model

_ROOT = Path(__file__).resolve().parents[2] / "docs"
_FAMILIES = ("gpt2", "llama")
_SEEDS = 12  # random models of each family


def main() -> None:
    """Count until the time is over, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--counts", type=Path, default=_ROOT / "calibration.json")
    parser.add_argument("--page", type=Path, default=_ROOT / "pages" / "calibration.md")
    asked = parser.parse_args()
    counts, end = Counts(asked.counts), time.monotonic() + 60 * asked.minutes
    left = [(name, work) for name, work in _work(counts) if name not in counts.done]
    for name, work in left:
        if time.monotonic() > end:
            break
        work()
        counts.finish(name)
        print(name, flush=True)
    asked.page.write_text(page(counts), encoding="utf-8")
    print(f"{len(counts.done)} pieces of work done, {sum(name not in counts.done for name, _ in left)} left")


def _work(counts: Counts) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every piece of work with its name, in turns, so that a short run has some of each."""
    for name in FAMILIES:
        for n in SIZES:
            yield f"coverage {name} {n}", partial(count_coverage, counts, name, n, 0)
    for n in SIZES:
        yield f"coverage documents {n}", partial(count_documents, counts, n, 0)
        yield f"coverage rare {n}", partial(count_rare, counts, n, 0)
    for seed in range(_SEEDS):
        for kind in KINDS:
            if seed < len(PROMPTS):
                yield f"default {kind} {seed}", partial(_default_checks, counts, kind, seed)
            for family in _FAMILIES:
                yield f"random {family} {kind} {seed}", partial(_random_checks, counts, family, kind, seed)
        for family in _FAMILIES:
            yield f"labels {family} {seed}", partial(_random_labels, counts, family, seed)


def _default_checks(counts: Counts, kind: str, seed: int) -> None:
    count_checks(counts, "default model", _default(), PROMPTS[seed], kind, seed)


@cache
def _default() -> Model:
    return load()


def _random_checks(counts: Counts, family: str, kind: str, seed: int) -> None:
    model = random_model(family, seed)
    count_checks(counts, f"random {family}", model, random_prompt(model, seed), kind, seed)


def _random_labels(counts: Counts, family: str, seed: int) -> None:
    count_labels(counts, f"random {family}", random_model(family, seed), seed)


def random_model(family: str, seed: int) -> Model:
    """Random weights from a real config of the family, six layers of sixteen heads, larger than they are initialised:
    patterns and contributions that are not all alike."""
    torch.manual_seed(seed)
    config: GPT2Config | LlamaConfig
    if family == "gpt2":
        config = GPT2Config(n_layer=6, n_head=16, n_embd=128, n_positions=256, vocab_size=512)
    else:
        config = LlamaConfig(
            num_hidden_layers=6, num_attention_heads=16, num_key_value_heads=8, hidden_size=128, intermediate_size=256,
            max_position_embeddings=256, vocab_size=512,
        )  # fmt: skip
    module = AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 and not any(part in name for part in ("embed", "wte", "wpe")):
                parameter.mul_(4.0)
    return wrap(module, None, name=f"random-{family}-{seed}")


if __name__ == "__main__":
    main()
