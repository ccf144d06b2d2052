"""Where the heads of a toy look on its own task: one pass over its evaluation batch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
import xarray as xr

from probes.formation.toy_models import lacks_task, recipe_of
from workbench.analysis.kinds import OnModel, Stimulus
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, chosen
from workbench.figures import head_name
from workbench.loading.toys.recipes import asked
from workbench.models.hooks import PATTERN
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.models.selfcheck import VISIBLE
from workbench.observation import Need, Observation, Site

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "TaskAttention"]


def looked(pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """Attention to the keys that count, mean over queries that have any: (batch, head, look). NaN without a query.

    pattern: (batch, head, query, key). fields: `looks`, bool (batch, look, query, key).
    """
    looks = site.fields["looks"].to(pattern.device)
    on_them = torch.einsum("bhqk,blqk->bhlq", pattern.float(), looks.float())
    asked = looks.any(-1)
    return (on_them * asked[:, None]).sum(-1) / asked.sum(-1)[:, None]


_NEED = Need((PATTERN,), looked, dims="head component")


class TaskAttention(OnModel, name="task-attention", title="Where a toy's heads look", requires=(VISIBLE,)):
    """Where each head of a toy looks, on sequences of the task that it was trained on.

    Definition: for each kind of place that the task knows (the previous token, the first one, what followed the last
    time, the query's label ...) the attention that a head pays to the keys of that kind, summed over keys, mean over
    the queries that have such a key, then over sequences. All sequences are the task's fixed evaluation batch.

    Limits: where a head looks is not what it does: ablate it. With ReLU attention rows do not sum to 1, and the numbers
    are weights rather than shares. Sequences are of one task: on others a head may look elsewhere.

    Source: the kinds of place are those of the tasks' papers (Guo et al. 2024, arXiv 2410.13835; Olsson et al. 2022,
    arXiv 2209.11895; Singh et al. 2024, arXiv 2404.07129; Akyurek et al. 2024, arXiv 2401.12973).

    Returns: a variable `to_KIND` (layer, head) for each kind, share of attention.
    """

    sequences: Annotated[int, Range(4, 1024), "sequences of the evaluation batch"] = 32

    @classmethod
    def inapplicable(cls, model: Model) -> str | None:
        """It is of trained toys."""
        return lacks_task(model)

    def stimulus(self, model: Model, progress: Progress | None = None) -> Stimulus:
        """The evaluation batch, and which keys count."""
        task = recipe_of(model).task
        batch = task.evaluation(self.sequences)
        looks = torch.stack(list(task.looks(batch).values()), 1)
        tokens = tuple(tokenise(model, Prompt.ids(row)) for row in batch.tokens.tolist())
        return Stimulus(tokens, {"looks": looks})

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """One pass over its sequences, as long as the context at most."""
        return self.sequences * sizes.n_ctx / SHORT

    def needs(self, model: Model, tokens: Sequence[Tokens]) -> tuple[Need, ...]:
        """Attention to the keys that count."""
        return (_NEED,)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Means over sequences, by kind."""
        task = asked(observation.identity.name).recipe.task
        kinds = tuple(task.looks(task.evaluation(1)))
        values = observation[_NEED].nanmean(1)  # layer head look
        bounds = (0, None) if observation.weights(0).attention == "relu" else (0, 1)
        found: dict[str, Any] = {
            f"to_{kind}": ("layer head", values[..., i], "share of attention", bounds, f"attention: {_said(kind)}")
            for i, kind in enumerate(kinds)
        }
        result = dataset(observation, **found)
        return result.assign_attrs(summary=_summary(result))


def _said(kind: str) -> str:
    return kind.replace("_", " ")


def _summary(result: xr.Dataset) -> str:
    """The head that looks most at each kind of place."""
    said = []
    for name, values in result.data_vars.items():
        if values.notnull().any():
            top = values.where(values.notnull(), -1.0).argmax(("layer", "head"))
            layer, head = int(top["layer"]), int(top["head"])
            share = float(values[layer, head])
            said.append(f"{_said(str(name).removeprefix('to_'))} {head_name(layer, head)} ({share:.2f})")
    return f"The largest attention, by kind of place: {', '.join(said)}."


def grid_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the kind of place that some head looks at most."""
    from workbench.figures import heads_grid

    most = max(result.data_vars, key=lambda name: float(result[name].max()))
    return heads_grid(result, str(most), title=str(result[most].attrs["long_name"]))


def head_detail(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """All kinds of places of the selected head."""
    from workbench.figures import bars

    at = chosen(result, selection, "layer", "head")
    if at is None:
        return None
    names = list(result.data_vars)
    values = [float(result[name].sel(layer=at[0], head=at[1])) for name in names]
    attrs = {**result[names[0]].attrs, "long_name": "mean attention"}
    kinds = [_said(str(name).removeprefix("to_")) for name in names]
    small = xr.Dataset({"attention": ("component", values, attrs)}, {"component": kinds})
    return bars(small, "attention", "component", title=f"{head_name(*at)}: where it looks on its task")


VIEW = View(
    TaskAttention,
    question="Where does each head of this toy look, on the task it was trained on?",
    asks=(Ask("sequences", "Average over", unit="sequences of the task"),),
    figures=(grid_figure,),
    details=(head_detail,),
)
