"""A prompt becomes a contrast: a counterfactual of equal length, the answer, and the wrong answer.

What is not given is made, and shown. Without a counterfactual one word is swapped for one of the same kind: for another
word of the prompt if that changes the likeliest token, else for another word of its list, else for a near word that
may stand there (`fluent`); of these, the swap that moves the prediction most. A piece of a longer word is swapped for
nothing. Swaps go first where both answers are likely and have one shape (both words, both numbers); then those that
leave the likeliest token but make another one of its shape likely (letters of a choice that the model does not make);
then the others. Of a long prompt only those words are tried on whose embedding the answer depends most, by its
gradient: all of them would take as many passes of all tokens. Without answers, they are what the model itself finds
likeliest on the two prompts, and where that is the same token, the one that rises most.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from probes.circuits.attribution_patching import gradients
from probes.circuits.graph.task_texts import PairText
from probes.circuits.graph.tasks import Pair, pair_of
from probes.circuits.prompt_pairs import prompt_pair
from probes.explain.fluent import ODD, fluent
from probes.explain.same_kind import is_listed, is_word, pieces, same_kind, shape
from workbench.errors import InputError
from workbench.models.hooks import RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.models.target import Target, likelier, target_of
from workbench.observation import observe
from workbench.observation.metrics import Metric, in_steps

__all__ = ["SAID", "Contrast", "contrast_of", "ends", "shown_text", "with_ids"]

SAID = 0.1  # probability of what a model says: that it prefers its likeliest token is so by construction
_SWAPS = 5  # words that are tried in the place of one
_LOOKED_AT = 8  # near words of which it is asked whether they may stand there
_ALIKE = 12  # the likest of a vocabulary among which other words of the prompt count as the same kind
_EVERYONE = 200  # of a list: all
_FEWEST, _TOKENS = 12, 600  # words of a prompt that are tried: so many, or as many as make so many tokens


@dataclass(frozen=True, eq=False)
class Contrast:
    """A pair, and what of it was made here. own_answers: whether both answers are the model's likeliest tokens. note:
    what to say of answers that were given, where they would be likelier in another form, or ""."""

    pair: Pair
    made_counterfactual: bool
    own_answers: bool
    note: str = ""

    @property
    def differing(self) -> tuple[int, ...]:
        """Positions where the two prompts differ."""
        both = zip(self.pair.clean.ids, self.pair.corrupt.ids, strict=True)
        return tuple(pos for pos, (a, b) in enumerate(both) if a != b)

    def has_words(self, model: Model) -> bool:
        """Whether an answer has a letter or a digit."""
        answers = (*self.pair.answers.members, *self.pair.wrong.members)
        return any(any(map(str.isalnum, model.vocabulary.string(token))) for (token,) in answers)


def contrast_of(model: Model, prompt: Any, corrupt: str = "", target: str = "", against: str = "") -> Contrast:
    """The contrast of a prompt. InputError where its answers are no single tokens, or nothing can be swapped."""
    clean = tokenise(model, prompt)
    wanted, other = (target_of(model.vocabulary, text) if text else None for text in (target, against))
    swapped = prompt_pair(model, clean, corrupt).corrupt if corrupt else _counterfactual(model, clean, wanted, other)
    on_clean, on_corrupt = ends(model, [clean, swapped])
    tops = int(on_clean.argmax()), int(on_corrupt.argmax())
    answer = wanted or Target.one(tops[0])
    wrong = other or Target.one(tops[1])
    if not other and set(wrong.members) & set(answer.members):
        wrong = Target.one(_risen(on_clean, on_corrupt, answer))
    own = answer.token == tops[0] and wrong.token == tops[1]
    dropped: Counter[str] = Counter()
    text = PairText(_as_ids(clean), _as_ids(swapped), (answer.written,), (wrong.written,), "shown")
    pair = pair_of(model, text, dropped)
    if pair is None:
        raise InputError(
            f"a contrast of {answer.describe(model.vocabulary)} and {wrong.describe(model.vocabulary)} with "
            f"{' and '.join(dropped)}",
            "answers that are single tokens of their own",
            "Name others, or take their first tokens",
        )
    forms = ((target, on_clean), (against, on_corrupt))  # each on the prompt whose answer it is
    notes = [likelier(model.vocabulary, text, row.log_softmax(-1)) for text, row in forms if text]
    return Contrast(pair, not corrupt, own, " ".join(filter(None, (*notes, in_steps(model, on_clean)))))


def ends(model: Model, prompts: list[Tokens]) -> list[torch.Tensor]:
    """Logits at the last position of each prompt, `[d_vocab]` float32."""
    return [rows[-1].float() for rows in observe(model, prompts).logits]


def with_ids(model: Model, ids: Any) -> Tokens:
    """A prompt of these ids, as it stands."""
    return tokenise(model, Prompt.ids(list(ids)))


def shown_text(model: Model, tokens: Tokens) -> str:
    """A prompt for people, without what the tokenizer puts in front."""
    return model.vocabulary.text(tokens.ids[int(tokens.bos) :])


def _as_ids(tokens: Tokens) -> Prompt:
    return Prompt.ids(list(tokens.ids))


def _risen(clean: torch.Tensor, corrupt: torch.Tensor, answer: Target) -> int:
    """The likeliest tokens of the counterfactual, the one that rose most; not the answer."""
    near = [int(i) for i in corrupt.topk(min(10, len(corrupt))).indices if (int(i),) not in answer.members]
    rise = corrupt.log_softmax(-1) - clean.log_softmax(-1)
    return max(near, key=lambda i: float(rise[i]))


def _counterfactual(model: Model, clean: Tokens, wanted: Target | None, other: Target | None) -> Tokens:
    """The swap of one word that moves the prediction most; of the first tier that has one that changes the answer."""
    swaps = list(_swaps(model, clean, wanted))
    if not swaps:
        raise InputError(
            "a prompt without a word of one token that could be swapped for one of its kind",
            "a counterfactual of equal length",
            "Give one (corrupt=...)",
        )
    first, *others = ends(model, [clean, *(swap.tokens for swap in swaps)])
    token = lambda target, row: int(row.argmax()) if target is None or target.token is None else target.token

    def moved(swap: _Swap, row: torch.Tensor) -> tuple[int, bool, int, float]:
        a, b = token(wanted, first), token(other, row)
        changes = a != b
        b = b if changes else _risen(first, row, Target.one(a))
        alike = shape(model.vocabulary.string(a)) == shape(model.vocabulary.string(b))
        said = min(float(one.softmax(-1)[i]) for one, i in ((first, a), (row, b))) >= SAID
        level = (4 if alike else 2) if changes and said else (3 if said and alike else int(changes))
        return level, alike, -swap.tier, float((first[a] - first[b]) - (row[a] - row[b]))

    return max(zip(swaps, others, strict=True), key=lambda one: moved(*one))[0].tokens


class _Swap(NamedTuple):
    """A prompt with one word swapped. tier: 0 for another word of the prompt, 1 for one of the same list, 2 else."""

    tokens: Tokens
    tier: int


def _words(model: Model, clean: Tokens) -> list[int]:
    """Positions of words that may be swapped. The last token stays: what follows it is what is asked; a prompt without
    words (ids without a text) may swap any other one, a text any that is no piece of a word."""
    broken = pieces(model, clean)
    inner = [pos for pos in range(1 if len(clean) > 1 else 0, len(clean) - 1) if pos not in broken]
    places = [pos for pos in inner if is_word(clean.strings[pos])]
    if not places:
        places = [pos for pos in inner if not broken or any(map(str.isalnum, clean.strings[pos]))]
    return places


def _tried(model: Model, clean: Tokens, places: list[int], wanted: Target | None) -> list[int]:
    """Of the words those that are swapped: all, or those on whose embedding the answer depends most."""
    most = max(_FEWEST, _TOKENS // len(clean))
    if len(places) <= most:
        return places
    (on_clean,) = ends(model, [clean])
    answer = wanted if wanted is not None and wanted.length == 1 else Target.one(int(on_clean.argmax()))
    other = next(i for i in on_clean.argsort(descending=True).tolist() if (i,) not in answer.members)
    metric = Metric("logit difference", answer, Target.one(other), ids=clean.ids)  # a sure answer has a gradient, too
    _, grads = gradients(model, clean, metric, (RESID_PRE,))
    reach = grads[RESID_PRE, 0].float().norm(dim=-1)
    return sorted(sorted(places, key=lambda pos: -float(reach[pos]))[:most])


def _swaps(model: Model, clean: Tokens, wanted: Target | None) -> Iterator[_Swap]:
    """One word at a time."""
    places = _words(model, clean)
    known = {clean.ids[pos] for pos in places}
    for pos in _tried(model, clean, places, wanted):
        token, listed = clean.ids[pos], is_listed(clean.strings[pos])
        alike = same_kind(model, token, _ALIKE, siblings=True)
        everyone = same_kind(model, token, _EVERYONE, siblings=True) if listed else alike
        here = [i for i in everyone if i in known]
        near = alike[:_SWAPS]
        if not listed:
            lost = fluent(model, clean.ids, token, alike[:_LOOKED_AT])
            near = [one for one in alike[:_LOOKED_AT] if lost[one] <= ODD]
        for one in dict.fromkeys([*here, *near[:_SWAPS]]):
            ids = list(clean.ids)
            ids[pos] = one
            tier = 2 if not listed else 0 if one in here else 1
            yield _Swap(with_ids(model, ids), tier)
