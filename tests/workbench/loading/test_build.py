"""How a model is built."""

import torch
from torch import nn

from tests.tiny_models import tiny_model
from workbench.loading.build import parameters_of


def test_parameters_are_those_that_torch_names_in_its_order() -> None:
    """The hash of a model's weights goes over them in this order. Shared modules and tied tensors count once, where
    torch counts them; what is None is nothing."""
    shared = nn.Linear(2, 3)
    tied = nn.Linear(2, 3, bias=False)
    tied.weight = shared.weight
    inner = nn.Module()
    inner.first, inner.second, inner.own = nn.Sequential(tied, shared), shared, nn.Parameter(torch.ones(1))
    outer = nn.ModuleDict({"b": nn.LayerNorm(3), "a": inner, "c": nn.Linear(1, 1, bias=False), "again": inner.first})
    outer.register_module("gone", None)
    for module in (
        outer,
        tiny_model("llama").adapter.bridge.original_model,
        tiny_model("gpt2").adapter.bridge.original_model,
    ):
        ours, theirs = parameters_of(module), list(module.named_parameters())
        assert [name for name, _ in ours] == [name for name, _ in theirs]
        assert all(one is other for (_, one), (_, other) in zip(ours, theirs, strict=True))
