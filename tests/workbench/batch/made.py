"""A batch of a tiny model for tests: analyses of every kind, prompts of many lengths."""

from workbench.analysis.catalog import Catalog
from workbench.loading.pretrained import load

CATALOG = Catalog(
    {
        "norms": "tests.tiny_runs:Norms",
        "model-norms": "tests.tiny_runs:ModelNorms",
        "study-norms": "tests.tiny_runs:StudyNorms",
        "broken-analysis": "tests.tiny_runs:BrokenAnalysis",
    }
)


def prompts(n=24):
    """Ids of n prompts, lengths 4 to 9."""
    return [[(7 * i + 3 * j) % 90 + 1 for j in range(4 + i % 6)] for i in range(n)]


def spec(n=24, *, analyses=("norms", "model-norms"), **more):
    """A spec of the toy; its results depend on every token."""
    made = {
        "name": "made",
        "models": [{"name": "tiny"}],
        "prompts": [{"group": "even", "ids": prompts(n)[::2]}, {"group": "odd", "ids": prompts(n)[1::2]}],
        "analyses": [{"name": name} for name in analyses],
        "limits": {"batch_tokens": 24, "shard_tokens": 40},
    }
    return made | more


def toy():
    """The model that `load()` knows without a file."""
    return load("toy-induction")
