"""What the processor is taken for, from what torch tells, and the sentence about a slow number format."""

from types import SimpleNamespace

import pytest
import torch

from workbench import processor
from workbench.processor import Processor, slow_format, this_processor

OLD = Processor("AVX2", bfloat16=False, float16=False, amx=False)


@pytest.fixture
def told(monkeypatch):
    """`told(instructions, bf16=..., fp16=...)`: this machine's processor, if torch told this of it. None: no answer."""

    def tell(instructions, **used):
        monkeypatch.setattr(processor, "_capabilities", lambda: instructions)
        monkeypatch.setattr(processor, "_used", used.get)
        return this_processor.__wrapped__()

    return tell


def test_a_format_is_quick_where_the_processor_has_it_and_the_library_takes_it(told):
    xeon = {"avx512_bf16": True, "amx_bf16": True, "amx_tile": True, "avx512_fp16": False}
    made = told(xeon, bf16=True, fp16=False)
    assert (made.bfloat16, made.float16, made.amx) == (True, False, True)
    made = told(xeon, bf16=False, fp16=False)  # the library was told not to use what there is
    assert (made.bfloat16, made.float16, made.amx) == (False, False, False)
    made = told({"avx512_f": True}, bf16=True, fp16=False)  # AVX512 alone: the library converts, which is slow
    assert made.bfloat16 is False
    arm = told({"neon": True, "bf16": True, "fp16_arith": True}, bf16=True, fp16=True)
    assert (arm.bfloat16, arm.float16, arm.amx) == (True, True, False)


def test_what_torch_does_not_tell_is_unknown_and_a_plain_no_is_enough(told):
    assert told(None, bf16=True, fp16=None).bfloat16 is None
    assert told({"avx512_bf16": True}, bf16=None).bfloat16 is None
    assert told({"avx512_f": True}, bf16=None).bfloat16 is False
    assert told(None, bf16=False).bfloat16 is False


def test_a_torch_without_these_names_is_no_error(monkeypatch):
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    assert processor._capabilities() is None
    assert processor._used("int3") is None


def test_this_machine_is_named():
    made = this_processor()
    assert str(made).startswith(torch.backends.cpu.get_cpu_capability()) and "bf16" in str(made)
    assert made.multiplies(torch.float32) is True and made is this_processor()


def test_names():
    assert str(OLD) == "AVX2 without bf16, fp16, AMX"
    assert str(Processor("AVX512", True, False, True)) == "AVX512 with bf16, AMX; without fp16"
    assert str(Processor("DEFAULT", None, None)) == "DEFAULT unknown: bf16, fp16, AMX"


def test_half_precision_without_instructions_is_said_to_be_slow():
    said = slow_format(torch.bfloat16, "cpu", OLD)
    assert said.startswith("bfloat16 will be slow") and "AVX2" in said and said.count(". ") == 0 and said[-1] == "."
    assert slow_format(torch.float16, "cpu", OLD).startswith("float16")
    for dtype, device, has in (
        (torch.float32, "cpu", False),
        (torch.bfloat16, "cuda:0", False),
        (torch.bfloat16, "cpu", True),
        (torch.bfloat16, "cpu", None),
    ):
        assert slow_format(dtype, device, Processor("AVX2", bfloat16=has, float16=has)) is None
