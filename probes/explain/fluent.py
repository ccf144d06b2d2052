"""Words that make a sentence where they stand: of words of a kind, those that the model itself would write there.

Near words need not fit: of what lies near *city*, *town* and *village* may stand in "located in the city of", *urban*
and *two* may not. A word counts by the log-probability of the prompt from its first place on. Read on seven prompts of
the default model, some thirty words with 24 near ones each: most of what a person would put there loses up to six nats
against the shown word (*country* 5.7), most of what makes nonsense eight and more (*urban* 10.6, *two* 12.7). Of a
counterfactual, what is odd may be what is asked: in "My grandfather lost her keys" *grandfather* loses nine.
"""

from collections.abc import Sequence

from probes.lens.surprisal import Surprisal
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import observe

__all__ = ["ODD", "SENTENCE", "fluent"]

SENTENCE, ODD = 7.0, 10.0  # nats that may be lost
_ROWS = 8  # prompts of one pass, so that others get their turn


def fluent(model: Model, ids: Sequence[int], token: int, words: Sequence[int]) -> dict[int, float]:
    """What a prompt loses with each of the words in a token's place, wherever it stands, nats; least first.

    ids: of the prompt in which the token stands. Without a tokenizer, and for a first token, there are no sentences:
    nothing is lost, and the words are as they came.
    """
    if model.tokenizer is None or not words or ids.index(token) == 0:
        return dict.fromkeys(words, 0.0)
    rows = [[one if i == token else i for i in ids] for one in (token, *words)]
    shown, *others = _log_probs(model, rows, ids.index(token))
    lost = {word: shown - value for word, value in zip(words, others, strict=True)}
    return dict(sorted(lost.items(), key=lambda one: one[1]))


def _log_probs(model: Model, rows: Sequence[Sequence[int]], first: int) -> list[float]:
    """Of the tokens of each prompt from a place on, nats."""
    (need,) = Surprisal(top_k=1).needs(model, tokenise(model, Prompt.ids(list(rows[0]))))
    found = []
    for start in range(0, len(rows), _ROWS):
        some = [tokenise(model, Prompt.ids(list(ids))) for ids in rows[start : start + _ROWS]]
        found += [-float(one[first:, 0].double().sum()) for one in observe(model, some, (need,))[need]]
    return found
