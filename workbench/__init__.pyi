"""See `__init__.py`."""

from typing import Any

from workbench.analysis.compare import (
    difference as difference,
)
from workbench.analysis.results import (
    dataset as dataset,
)
from workbench.analysis.results import (
    open_result as open_result,
)
from workbench.analysis.results import (
    save as save,
)
from workbench.analysis.run import (
    run as run,
)
from workbench.card import (
    model_card as model_card,
)
from workbench.errors import (
    WorkbenchError as WorkbenchError,
)
from workbench.intervene import (
    MLP as MLP,
)
from workbench.intervene import (
    Ablate as Ablate,
)
from workbench.intervene import (
    Add as Add,
)
from workbench.intervene import (
    Attend as Attend,
)
from workbench.intervene import (
    Attention as Attention,
)
from workbench.intervene import (
    AttentionEdge as AttentionEdge,
)
from workbench.intervene import (
    AttentionKey as AttentionKey,
)
from workbench.intervene import (
    Clamp as Clamp,
)
from workbench.intervene import (
    Expert as Expert,
)
from workbench.intervene import (
    ExpertNeurons as ExpertNeurons,
)
from workbench.intervene import (
    Force as Force,
)
from workbench.intervene import (
    Head as Head,
)
from workbench.intervene import (
    Knockout as Knockout,
)
from workbench.intervene import (
    Neurons as Neurons,
)
from workbench.intervene import (
    Patch as Patch,
)
from workbench.intervene import (
    Residual as Residual,
)
from workbench.intervene import (
    Scale as Scale,
)
from workbench.intervene import (
    Steer as Steer,
)
from workbench.loading.pretrained import (
    load as load,
)
from workbench.loading.pretrained import (
    wrap as wrap,
)
from workbench.models.hooks import (
    ATTN_OUT as ATTN_OUT,
)
from workbench.models.hooks import (
    EXPERT_WEIGHT as EXPERT_WEIGHT,
)
from workbench.models.hooks import (
    LOGITS as LOGITS,
)
from workbench.models.hooks import (
    MLP_OUT as MLP_OUT,
)
from workbench.models.hooks import (
    MLP_POST as MLP_POST,
)
from workbench.models.hooks import (
    PATTERN as PATTERN,
)
from workbench.models.hooks import (
    RESID_MID as RESID_MID,
)
from workbench.models.hooks import (
    RESID_POST as RESID_POST,
)
from workbench.models.hooks import (
    RESID_PRE as RESID_PRE,
)
from workbench.models.hooks import (
    ROUTER as ROUTER,
)
from workbench.models.hooks import (
    SCORES as SCORES,
)
from workbench.models.hooks import (
    K as K,
)
from workbench.models.hooks import (
    Q as Q,
)
from workbench.models.hooks import (
    V as V,
)
from workbench.models.hooks import (
    Z as Z,
)
from workbench.models.hooks import (
    expert_post as expert_post,
)
from workbench.models.model import (
    Model as Model,
)
from workbench.models.prompt import (
    Prompt as Prompt,
)
from workbench.observation import (
    Need as Need,
)
from workbench.observation import (
    Observation as Observation,
)
from workbench.observation import (
    Site as Site,
)
from workbench.observation import (
    keep as keep,
)
from workbench.observation import (
    observe as observe,
)
from workbench.observation.recording import (
    measure_means as measure_means,
)
from workbench.observation.recording import (
    record as record,
)
from workbench.records import (
    read_pairs as read_pairs,
)
from workbench.records import (
    read_prompts as read_prompts,
)
from workbench.storage.tables import (
    tables as tables,
)

__version__: str
WHERE: dict[str, str]
__all__: list[str]

def __getattr__(name: str) -> Any: ...
