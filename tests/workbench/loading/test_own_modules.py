"""What people put into a model by hand is followed wherever it keeps what decides its numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny_models import tiny_hf
from workbench import Prompt, observe, wrap
from workbench.loading.settings import held_settings, settings_hash

IDS = [0, 7, 31, 64, 12, 7]


class Steered(nn.Module):
    """A linear map that something is added to, as people write it; it counts its calls and keeps what came by."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self._on, self.scales = base, True, {"default": 1.0}
        self.direction = torch.linspace(-1, 1, base.out_features)
        self.more = [torch.ones(base.out_features)]
        self.gains = np.ones(base.out_features, np.float32)
        self.said = SimpleNamespace(factor=1.0)
        self.calls, self.last, self._seen = 0, None, []
        self.itself = [self]

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = self.base(x)
        added = self.direction * self.more[0] * torch.from_numpy(self.gains)
        return self.last + self._on * self.scales["default"] * self.said.factor * added


class Noting(Steered):
    """The same, where a helper fills a list."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._note(x)
        return super().forward(x)

    def _note(self, x: torch.Tensor) -> None:
        self._seen.append(x.detach())


def steered(kind: type[Steered] = Steered) -> tuple[nn.Module, Steered]:
    """A model with one in a block."""
    hf = tiny_hf("llama")
    hf.set_attn_implementation("eager")
    hf.model.layers[0].mlp.down_proj = own = kind(hf.model.layers[0].mlp.down_proj)
    return hf, own


CHANGES = {
    "a private switch": lambda own: setattr(own, "_on", False),
    "a dictionary of scales": lambda own: own.scales.update(default=3.0),
    "another tensor": lambda own: setattr(own, "direction", torch.ones(own.base.out_features)),
    "a tensor in place": lambda own: own.direction.mul_(2),
    "a tensor in a list": lambda own: own.more.__setitem__(0, own.more[0] * 2),
    "an array in place": lambda own: own.gains.__imul__(2),
    "a setting of an object": lambda own: setattr(own.said, "factor", -1.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_module_of_ones_own_holds_is_followed(change):
    hf, own = steered()
    model = wrap(hf, None)
    key, before = model.identity.key, observe(model, Prompt.ids(IDS)).logits[0]
    change(own)
    with torch.no_grad():
        plain = hf(torch.tensor([IDS])).logits[0, -1:]
    assert not torch.allclose(plain, before, atol=1e-3)
    torch.testing.assert_close(observe(model, Prompt.ids(IDS)).logits[0], plain, atol=1e-5, rtol=1e-5)
    assert model.identity.key != key


@pytest.mark.parametrize("kind", [Steered, Noting])
def test_what_its_pass_writes_is_no_change(kind):
    """Else every plain call made the instrument anew, and results from before it were of another model."""
    hf, own = steered(kind)
    before, digest = held_settings(hf), settings_hash(hf)
    hf(torch.tensor([IDS]))
    assert own.calls == 1 and own.last is not None and len(own._seen) == (kind is Noting)
    assert held_settings(hf) == before and settings_hash(hf) == digest == settings_hash(steered(kind)[0])
