"""How the study presents itself to the shell, the page and the batch runner."""

from typing import Any

from probes.attention.active_dormant import figures
from probes.attention.active_dormant.settings import MIN_TEXTS, Settings
from probes.attention.active_dormant.study import ablation_work, study
from probes.checks import claims
from workbench.analysis.legacy import Entry, Param
from workbench.corpora import BUNDLED, corpus_digest
from workbench.models.selfcheck import ROWS

__all__ = ["ENTRY", "run"]


def _cost(sizes: Any, n_tokens: int = 0, **params: Any) -> float:
    """Bare passes of one text, roughly: what the ablations cost once their heads are known is not known before."""
    settings = Settings(**{k: v for k, v in params.items() if k in Settings.__dataclass_fields__})
    return 2 * settings.texts * (1 + ablation_work(settings))


def _texts_digest(model: Any, first: str = "prose", second: str = "code", **params: Any) -> str:
    """What the texts are: with another Python, or another version of a user's files, it is another result."""
    return " ".join(map(corpus_digest, (first, second)))


ENTRY = Entry(
    name="active-dormant",
    title="Active-dormant heads",
    source="arXiv 2410.13835",
    definition=(
        "A head is dormant on a text when its attention to the sink set exceeds 0.8 and its output norm is below 0.2 "
        "of its largest over all texts. Contrast: dormant share in one domain minus the other. Ablation: loss without "
        "the head minus loss with it, nats per token."
    ),
    limits=(
        "Domains differ in more than their kind: compare texts of one length, and trust the ablation over the "
        "contrast. Zero ablation also removes the head's constant output; mean ablation does not."
    ),
    scope="study",
    study=study,
    prompted=False,
    figures=(figures.contrast_figure, figures.dormant_figure, figures.attention_figure, figures.texts_figure),
    details=(figures.texts_detail, figures.output_detail, figures.ablation_detail),
    claims=(claims.head,),
    params=(
        Param("first", str, "prose", "a domain of texts", choices=BUNDLED, files=True),
        Param("second", str, "code", "the domain to compare with", choices=BUNDLED, files=True),
        Param("texts", int, 50, "texts of each domain", low=MIN_TEXTS, high=10_000),
        Param("length", int, 128, "T, tokens of a text, BOS included", low=2, high=4096),
        Param("epsilon", float, 0.3, "alpha above which another key is a sink", low=0.0, high=1.0),
        Param("attention_above", float, 0.8, "attention to sinks above which a text may be dormant", low=0.0, high=1.0),
        Param("output_below", float, 0.2, "share of the largest output below which it is", low=0.0, high=1.0),
        Param("ablate", str, "candidates", "heads to ablate: candidates, all, none, or names such as L18H6"),
        Param("ablation_texts", int, 16, "texts of each domain that ablations run on", low=2, high=10_000),
        Param("leading", int, 3, "heads whose sink attention differs most, to ablate as well", low=0, high=1000),
        Param("random_heads", int, 20, "random heads to ablate beside the candidates", low=0, high=1000),
        Param("seed", int, 0, "draws texts, heads and resamples", low=0, high=2**31 - 1),
    ),
    requires=(ROWS,),
    cost=_cost,
    artifact=_texts_digest,
)
run = ENTRY.run
