"""Interventions as frozen values, and the one context manager that carries them out.

A value says what is changed: `Ablate(Head(18, 6))`, `Patch(RESID_MID, 5, source)`, `Knockout((-1,), (3,), (4, 5))`.
It prints itself with the hashes of what it refers to, and that is what goes into provenance; two values that print
alike are equal. `edits(model)` says where it writes. `hooks()` carries out any number of them, and is used by
`observe()`, by gradient studies and by training; it takes everything back in every case, and raises when an edit did
not fire.

rows: prompts of the call that a value applies to (None: all), so that a sweep is one batch of the same prompt with
another edit in each row. positions: token positions, negative ones counted from each prompt's end (None: all).
"""

from workbench.intervene.ablation import Ablate, Add, Clamp, Force, Scale
from workbench.intervene.attend import Attend
from workbench.intervene.context import hooks
from workbench.intervene.edit import Edit, Intervention, Where, first_layer, tensor_digest, with_rows
from workbench.intervene.knockout import Knockout
from workbench.intervene.patch import FreezeNormScale, FreezePatterns, Patch
from workbench.intervene.steer import Steer
from workbench.intervene.units import (
    MLP,
    Attention,
    AttentionEdge,
    AttentionKey,
    Expert,
    ExpertNeurons,
    Head,
    Neurons,
    Residual,
    units_of,
)

__all__ = [
    "MLP",
    "Ablate",
    "Add",
    "Attend",
    "Attention",
    "AttentionEdge",
    "AttentionKey",
    "Clamp",
    "Edit",
    "Expert",
    "ExpertNeurons",
    "Force",
    "FreezeNormScale",
    "FreezePatterns",
    "Head",
    "Intervention",
    "Knockout",
    "Neurons",
    "Patch",
    "Residual",
    "Scale",
    "Steer",
    "Where",
    "first_layer",
    "hooks",
    "tensor_digest",
    "units_of",
    "with_rows",
]
