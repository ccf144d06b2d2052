"""What the tests of the bench share: a tiny model, with and without our instrument."""

import copy
from collections.abc import Callable

import pytest

from apps.bench.subject import Subject, rows_of_text
from workbench.loading.pretrained import wrap


@pytest.fixture(scope="module")
def models():
    """Ours, and the bare one."""
    from tests.tiny_models import tiny_hf

    bare = tiny_hf("llama")
    bare.set_attn_implementation("sdpa")
    return wrap(copy.deepcopy(bare), None, name="tiny-llama"), bare


@pytest.fixture
def subject(models) -> Callable[[int, int], Subject]:
    """A subject of that many prompts of that length."""
    model, bare = models
    return lambda batch, length: Subject(model, bare, rows_of_text(model, batch, length))
