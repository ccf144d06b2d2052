"""Readout probes of tiny models, made in a second: for tests of what is built on probes, not of how good they are."""

from pathlib import Path

import numpy as np
import torch

from probes.erasure.trained.artifact import default_path
from probes.erasure.trained.published import import_probes
from probes.erasure.trained.recipe import Recipe
from probes.erasure.trained.states import cut
from probes.erasure.trained.trainer import train
from tests.tiny_models import spelling, tiny_hf
from workbench.corpora import Corpus, Document
from workbench.loading.pretrained import wrap

QUICK = Recipe(epochs=1, lr=2e-3, batch=512, dtype="float32")


def random_pieces(model, n_train=50, n_other=8, length=48):
    """Random ids as the three parts of a corpus, two pieces to a document."""
    random = np.random.default_rng(0)
    draw = lambda n: cut(model, [(i // 2, [0, *random.integers(1, 96, length - 1)]) for i in range(n)])
    return {"train": draw(n_train), "val": draw(n_other), "test": draw(n_other)}


def tiny_probes(model, path: Path, depths=(1, 2), **more):
    """Probes of a tiny model, saved at a path."""
    return train(model, random_pieces(model), depths=depths, path=path, **{"recipe": QUICK} | more)


def probes_of_every_kind(model, folder: Path) -> None:
    """Factored, linear and imported probes of a tiny model, where analyses look."""
    weights = model.identity.key
    tiny_probes(model, default_path(weights))
    tiny_probes(model, default_path(weights, "linear"), recipe=Recipe.of("linear", epochs=1, dtype="float32"))
    for depth in (1, 2):
        for offset in (0, -1, -2):
            import_probes(model, published(model, folder / f"layer{depth - 1}_tgtidx{offset}.ckpt"), depth, offset)


def published(model, path: Path, seed=0, bias=False, d_model=None, d_vocab=None) -> Path:
    """A file as the authors publish theirs: the state_dict of a linear map from states to the vocabulary."""
    torch.manual_seed(seed)
    sizes = model.sizes
    linear = torch.nn.Linear(d_model or sizes.d_model, d_vocab or sizes.d_vocab, bias=bias)
    torch.save(linear.state_dict(), path)
    return path


def speller(kind="llama"):
    """A tiny model whose tokens are single characters, so that every word is a word of several tokens."""
    return wrap(tiny_hf(kind, n_layers=3), spelling(), name=f"tiny-speller-{kind}")


def sentences(n_documents=24, words=60) -> Corpus:
    """Documents of random words out of a hundred."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    known = ["".join(random.choice(letters, random.integers(1, 6))) for _ in range(100)]
    texts = [" ".join(random.choice(known, words)) + "." for _ in range(n_documents)]
    return Corpus("sentences", tuple(Document(f"text-{i}", text) for i, text in enumerate(texts)))
