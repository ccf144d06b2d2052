"""What another prompt, the giver, gives to the one that is shown: its last tokens, or the state of one of them."""

from typing import Any

import numpy as np
import torch

from probes.checks.matched_controls import CALIPER
from workbench.intervene import Residual
from workbench.models.hooks import RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.observation.recording import Recording, record

__all__ = ["Given", "GivenState", "as_far"]


class Given:
    """What a run of another prompt gives: its last tokens' values for the last tokens of the one that takes, without
    the first token of either. It asks for no prompt of its length: the text that takes grows."""

    length = None

    def __init__(self, recording: Recording, n_tokens: int) -> None:
        self._recording, self._n_tokens = recording, n_tokens
        self._shared = max(1, min(recording.length, n_tokens) - 1)

    @property
    def positions(self) -> tuple[int, ...]:
        """Where it is taken."""
        return tuple(range(self._n_tokens - self._shared, self._n_tokens))

    def take(self, *where: Any) -> torch.Tensor:
        """As of a recording of the prompt that takes; zero where nothing is taken."""
        given = self._recording.take(*where)
        moved = given.new_zeros(self._n_tokens, *given.shape[1:])
        moved[-self._shared :] = given[-self._shared :]
        return moved

    def __str__(self) -> str:
        return f"the last {self._shared} tokens of {self._recording}"


class GivenState:
    """What a run of another prompt has at one of its tokens, for another place of the one that takes."""

    length = None

    def __init__(self, recording: Recording, origin: int, pos: int) -> None:
        self._recording, self._origin, self._pos = recording, origin, pos

    def take(self, *where: Any) -> torch.Tensor:
        """As of a recording of the prompt that takes, up to the place; zero where nothing is taken."""
        given = self._recording.take(*where)
        moved = given.new_zeros(self._pos + 1, *given.shape[1:])
        moved[self._pos] = given[self._origin]
        return moved

    def __str__(self) -> str:
        return f"token {self._origin} of {self._recording}"


def as_far(model: Model, tokens: Tokens, unit: Residual, given: Recording, origin: int, seed: int) -> int | None:
    """The token of the giver, not its first, whose state is as far from the one that is replaced as that of the origin;
    None where none is, within the caliper. seed: how many of the nearest are passed over."""
    at = RESID_PRE, unit.layer, model
    here = record(model, tokens, [RESID_PRE], [unit.layer]).take(*at)[unit.pos]
    far = (given.take(*at).float() - here.float()).norm(dim=-1).double().clamp(min=1e-30).log().numpy()
    away = np.abs(far - far[origin])
    near = [p for p in np.argsort(away, kind="stable").tolist() if p not in (0, origin) and away[p] <= np.log(CALIPER)]
    return near[seed] if len(near) > seed else None
