"""Train the probes of a model from the page or the shell: what `token-erasure` asks for where it finds none."""

import json
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr

from probes.erasure.readout import KIND_HELP, SHOWN, identified
from probes.erasure.trained.artifact import ReadoutProbes, find
from probes.erasure.trained.recipe import KINDS, OFFSETS, Recipe
from probes.erasure.trained.trainer import train
from workbench.analysis.keys import digest
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.arguments import fitted
from workbench.errors import RefusedError, WorkbenchError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "TokenErasureProbes", "card_figure", "card_of"]


class TokenErasureProbes(Study, name="token-erasure-probes", title="Token erasure: train the probes"):
    """Train probes for the two recommended depths on the interpreter's documentation and keep them in the user's cache.

    Definition: Six linear probes that name the token at t, t - 1 and t - 2 from the state at t, at two depths: cross
    entropy through the model's whitened unembedding, a bias for each token, closed-form start (or, as kind linear, a
    plain softmax over the tokens of the corpus without bias, from zero). Kept in the user's cache, named by the
    model's weights and settings; about eight minutes of one core on the default model.

    Limits: Accuracy is that of a short training on one kind of text: a lower bound of what could be read.

    Source: Feucht et al. 2024, arXiv 2406.20086; the cheap recipe is ours

    Returns: The card: `probe_accuracy` (depth, offset) on held-out documents with `_low` and `_high`, and
    `last_accuracy` at last tokens of words.
    """

    prompted: ClassVar[bool] = False
    editable: ClassVar[bool] = False  # what is learned is kept by the model's weights
    learns: ClassVar[bool] = True

    again: Annotated[bool, "also where the cache has probes"] = False
    kind: Annotated[str, Choice(KINDS), KIND_HELP] = "factored"
    far: Annotated[bool, "also offset -3, which psi does not use"] = False
    epochs: Annotated[int, Range(1, 20), "passes over the training text"] = Recipe.epochs
    seed: Annotated[int, Range(0, 10_000), "of the split and of training"] = Recipe.seed

    def artifact(self, model: Model) -> str | None:
        """Which probes the cache has: a card of others, or of what was taken away, is none of them."""
        try:
            probes = find(model.identity.key, kind=self.kind)
        except WorkbenchError:
            return "damaged"
        if probes is None:
            return ""
        rows = [{key: row[key] for key in row if key != "seconds"} for row in probes.card["probes"]]
        made = [probes.digest, rows, probes.card["recipe"], probes.card["corpus"], probes.card["split"]]
        return digest(made)

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The card of what was trained, or is there made as asked. A stopped run goes on; offset -3 joins what is
        there. RefusedError where the cache has probes that were made in another way: they would be lost."""
        offsets = SHOWN if self.far else OFFSETS
        probes = None if self.again else self._kept(model)
        if probes is None or not set(offsets) <= set(probes.offsets):
            report = None if progress is None else lambda share, text: progress(share)
            recipe = Recipe.of(self.kind, epochs=self.epochs, seed=self.seed)
            probes = train(model, offsets=offsets, recipe=recipe, again=self.again, progress=report)
        result = identified(card_of(probes, offsets), model)
        made = {name: probes.card[name] for name in ("recipe", "corpus", "digest")}
        record = json.loads(result.attrs["provenance"]) | {"probes": made}
        yield result.assign_attrs(provenance=json.dumps(record, sort_keys=True))

    def _kept(self, model: Model) -> ReadoutProbes | None:
        """What the cache has; RefusedError where that was made by another recipe than this one's."""
        probes = find(model.identity.key, kind=self.kind)
        if probes is None:
            return None
        made, asked = probes.card["recipe"], {"epochs": self.epochs, "seed": self.seed}
        other = [name for name in asked if made[name] != asked[name]]
        if other:
            raise RefusedError(
                f"{self.name} with {_said(asked, other)}, where the cache has probes with {_said(made, other)}",
                "the parameters that the kept probes were made with",
                "Ask for those, or say again=True to train anew in their place",
            )
        return probes

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Eight to thirteen minutes of one core on the default model: 110,000 tokens through two thirds of the layers,
        and six probes."""
        return 10_000.0


def _said(recipe: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name}={recipe[name]}" for name in names)


@fitted()
def card_of(probes: ReadoutProbes, asked: Sequence[int] = SHOWN) -> xr.Dataset:
    """The card as a Dataset: `probe_accuracy` (depth, offset) on held-out documents with `_low` and `_high`.

    asked: the offsets that are shown, of those that there are. Attributes say how the probes were made.
    """
    rows = probes.numbers
    offsets = [offset for offset in asked if offset in probes.offsets]

    def table(key: str) -> np.ndarray:
        found = [[rows.get((depth, offset), {}).get(key) for offset in offsets] for depth in probes.depths]
        return np.array(found, dtype=np.float64)  # a number that is not known is null in the card, and NaN here

    spec = ("share of tokens", (0, 1), "accuracy on held-out documents")
    card = probes.card
    return dataset(
        coords={"depth": list(probes.depths), "offset": offsets},
        probe_accuracy=("depth offset", table("test_accuracy"), *spec),
        probe_accuracy_low=("depth offset", table("test_low"), *spec),
        probe_accuracy_high=("depth offset", table("test_high"), *spec),
        last_accuracy=("depth offset", table("test_last_accuracy"), *spec[:2], "accuracy at last tokens of words"),
    ).assign_attrs(
        corpus=card["corpus"]["name"],
        probes=probes.digest,
        recipe=json.dumps(card["recipe"], sort_keys=True),
        summary=_summary(card, len(probes.depths) * len(offsets)),
    )


def _summary(card: dict[str, Any], n: int) -> str:
    learned, asked = card["split"]["train"]["tokens"], card["split"]["test"]["documents"]
    epochs, name = card["recipe"]["epochs"], card["corpus"]["name"]
    return (
        f"{n} probes, trained on {learned} tokens of {name} ({epochs} pass{'es' * (epochs > 1)}, seed "
        f"{card['recipe']['seed']}), measured on {asked} other documents."
    )


def card_figure(result: xr.Dataset) -> "go.Figure":
    """Accuracy on held-out documents by depth, one line for each offset."""
    from workbench.figures import series

    return series(result, "probe_accuracy", "depth", by="offset", title="How often the probes name the right token")


VIEW = View(
    TokenErasureProbes,
    question="How well do probes read the tokens around the one they stand on?",
    asks=(
        Ask("kind", "Train probes of the kind"),
        Ask("epochs", "for", unit="passes over the text"),
    ),
    figures=(card_figure,),
)
