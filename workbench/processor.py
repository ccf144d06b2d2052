"""What the processor computes in: its vector instructions, and the number formats that it multiplies by itself.

Half precision is quick where there are instructions for it. Elsewhere torch converts every number (AVX512 without bf16:
about 4 times float32's time) or falls back to a plain loop (AVX2: about 100 times, 2 s instead of 0.02 s for a product
of 256 x 512 x 4096). So nobody here finds out by trying: torch is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

__all__ = ["Processor", "slow_format", "this_processor"]

# Instructions that multiply in a format, by the names of torch.cpu.get_capabilities().
_MULTIPLY = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


@dataclass(frozen=True)
class Processor:
    """vectors: the instruction set that torch's loops use, such as "AVX2". bfloat16, float16: whether products in them
    have instructions of their own; None where this torch does not tell. amx: whether there are tiles for them."""

    vectors: str
    bfloat16: bool | None
    float16: bool | None
    amx: bool | None = None

    def multiplies(self, dtype: torch.dtype) -> bool | None:
        """Whether products in a number format are quick; None where torch does not tell."""
        return {torch.bfloat16: self.bfloat16, torch.float16: self.float16}.get(dtype, True)

    def __str__(self) -> str:
        """Such as "AVX512 with bf16, fp16, AMX" or "AVX2 without bf16, fp16, AMX"."""
        extras = {"bf16": self.bfloat16, "fp16": self.float16, "AMX": self.amx}
        named = {
            word: [name for name, has in extras.items() if has is state]
            for word, state in (("with", True), ("without", False), ("unknown:", None))
        }
        said = [f"{word} {', '.join(names)}" for word, names in named.items() if names]
        return " ".join([self.vectors, "; ".join(said)]).strip()


@cache
def this_processor() -> Processor:
    """The processor of this machine, as far as torch may use it (ONEDNN_MAX_CPU_ISA and the like can forbid parts)."""
    capabilities = _capabilities()
    used = {dtype: _used(name) for dtype, name in ((torch.bfloat16, "bf16"), (torch.float16, "fp16"))}
    quick = {dtype: _quick(used[dtype], _has(capabilities, names)) for dtype, names in _MULTIPLY.items()}
    amx = _quick(used[torch.bfloat16], _has(capabilities, ("amx_tile",)))
    return Processor(torch.backends.cpu.get_cpu_capability(), quick[torch.bfloat16], quick[torch.float16], amx)


def _capabilities() -> Mapping[str, Any] | None:
    """Names of instructions and whether they are there; None where this torch, an older one, cannot say."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    return None if tell is None else tell()


def _has(capabilities: Mapping[str, Any] | None, names: tuple[str, ...]) -> bool | None:
    return None if capabilities is None else any(capabilities.get(name, False) for name in names)


def _used(name: str) -> bool | None:
    """Whether torch's library for matrix products (oneDNN) takes a format; None where this torch does not tell."""
    try:  # a private name: another torch may lack it, and then nothing is known
        return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")())
    except (AttributeError, RuntimeError):
        return None


def _quick(used: bool | None, has: bool | None) -> bool | None:
    """From what the library takes and what the processor has: both are needed, and a plain no of either is enough."""
    if used is False or has is False:
        return False
    return None if used is None or has is None else True


def slow_format(dtype: torch.dtype, device: str, processor: Processor | None = None) -> str | None:
    """One sentence where a model in this number format will be slow on this device; None where it will not.

    processor: instead of this machine's. What torch does not tell is taken as quick.
    """
    processor = processor or this_processor()
    if not device.startswith("cpu") or processor.multiplies(dtype) is not False:
        return None
    name = str(dtype).removeprefix("torch.")
    return (
        f"{name} will be slow: this processor ({processor.vectors}) has no instructions for it, so that a pass can "
        "take many times as long as in float32."
    )
