"""Train the probes of a model from the page or the shell: what `token-erasure` asks for where it finds none."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from probes.erasure.readout import KIND, OFFSETS, SHOWN, identified
from probes.erasure.trained.artifact import ReadoutProbes, find
from probes.erasure.trained.fit import KINDS
from probes.erasure.trained.trainer import Recipe, train
from workbench.analysis.legacy import Entry, Param
from workbench.analysis.results import dataset

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.models.model import Model

__all__ = ["MAKING", "card_of", "making_study"]


def making_study(
    model: "Model",
    tokens=None,
    *,
    again: bool = False,
    kind: str = "factored",
    far: bool = False,
    epochs: int = 3,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Train probes for the two recommended depths on the interpreter's documentation and keep them in the user's cache.

    again: also where the cache has some. kind: the cheap ones, or the paper's plain softmax. far: also offset -3; it
    joins what is there. Yields the card, as `card_of`. tokens: not used. A stopped run goes on.
    """
    offsets = SHOWN if far else OFFSETS
    probes = None if again else find(model.identity.weights_hash, kind=kind)
    if probes is None or not set(offsets) <= set(probes.offsets):
        report = None if progress is None else lambda share, text: progress(share)
        recipe = Recipe.of(kind, epochs=epochs, seed=seed)
        probes = train(model, offsets=offsets, recipe=recipe, again=again, progress=report)
    yield identified(card_of(probes), model)


def card_of(probes: ReadoutProbes) -> xr.Dataset:
    """The card as a Dataset: `probe_accuracy` (depth, offset) on held-out documents with `_low` and `_high`."""
    rows = probes.numbers
    offsets = [offset for offset in SHOWN if offset in probes.offsets]

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
    ).assign_attrs(corpus=card["corpus"]["name"], probes=probes.digest, summary=_summary(card))


def _summary(card: dict) -> str:
    learned, asked = card["split"]["train"]["tokens"], card["split"]["test"]["documents"]
    n, name = len(card["probes"]), card["corpus"]["name"]
    return f"{n} probes, trained on {learned} tokens of {name}, measured on {asked} other documents."


def card_figure(result: xr.Dataset) -> "go.Figure":
    """Accuracy on held-out documents by depth, one line for each offset."""
    from workbench.figures import series

    return series(result, "probe_accuracy", "depth", by="offset", title="How often the probes name the right token")


def cost(sizes, n_tokens: int, **params) -> float:
    """Some minutes: 110,000 tokens through two thirds of the layers, and six probes."""
    return 1500.0


MAKING = Entry(
    name="token-erasure-probes",
    title="Token erasure: train the probes",
    source="Feucht et al. 2024, arXiv 2406.20086; the cheap recipe is ours",
    definition=(
        "Six linear probes that name the token at t, t - 1 and t - 2 from the state at t, at two depths: cross entropy "
        "through the model's whitened unembedding, a bias for each token, closed-form start (or, as kind linear, a "
        "plain softmax over the tokens of the corpus without bias, from zero). Kept in the user's cache, "
        "named by the hash of the weights; about eight minutes of one core on the default model."
    ),
    limits="Accuracy is that of a short training on one kind of text: a lower bound of what could be read.",
    scope="study",
    study=making_study,
    prompted=False,
    figures=(card_figure,),
    params=(
        Param("again", bool, False, "also where the cache has probes"),
        Param("kind", str, "factored", KIND.help, choices=KINDS),
        Param("far", bool, False, "also offset -3, which psi does not use"),
        Param("epochs", int, 3, "passes over the training text", low=1, high=20),
        Param("seed", int, 0, "of the split and of training", low=0, high=10_000),
    ),
    cost=cost,
)
