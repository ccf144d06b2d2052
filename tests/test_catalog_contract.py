"""Every entry of the catalog is held to what an analysis promises (`tests.contract`), studies too, on tiny models.

What observes one pass runs on five models that are built in different ways, and that have no tokenizer: prompts are
ids. Studies run on a sixth, which spells words, since some bring texts of their own. A new analysis is held to all of
this by its line in the catalog; where it is slow, `QUICK` makes it small.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from probes import CATALOG
from probes.erasure.trained import trainer
from probes.stimuli import ioi_prompts
from tests.contract import LONG, Case, checks_of
from tests.tiny_models import KINDS, tiny_hf, tiny_model
from tests.tiny_probes import probes_of_every_kind, sentences
from workbench.analysis.kinds import Study
from workbench.analysis.run import run
from workbench.loading.pretrained import load, wrap
from workbench.loading.toys.families import random_model

READER, MIXTURE, TOY, BACKCOPY, AUTOMATA, CLASSES = "reader", "mixture", "toy", "backcopy", "automata", "classes"
# A toy that is trained within a second; its vocabulary holds the prompts of the contract.
A_TOY = "toy:induction,tokens=95,d_model=16,n_heads=2,steps=9,every=3"
# Parameters that make an entry small, and why it needs them.
QUICK: dict[str, tuple[dict, str]] = {
    "attention": ({"layer": 1}, "an edit in layer 0 changes no pattern there"),
    "neurons": ({"layer": 1, "pos": 3}, "nor at position 0 where the embedding of token 0 is zero, as Gemma's is here"),
    "induction-heads": ({"length": 24}, "96 tokens are made for real models"),
    "head-table": ({"n_sequences": 4, "texts": 4}, "16 sequences and 24 texts"),
    "head-survey": ({"n_prompts": 6}, "16 prompts"),
    "sink-rates": ({"samples": 3, "length": 16}, "32 samples of each of six conditions"),
    "active-dormant": (
        {"texts": 10, "length": 24, "ablation_texts": 2, "random_heads": 2, "ablate": "L1H1", "leading": 1},
        "50 texts of two domains, and 20 random heads",
    ),
    "expert-contrast": ({"texts": 10, "length": 24, "draws": 2}, "32 texts, and 39 random sets"),
    "attribution-patching": ({"checked": 6}, "60 heads are patched"),
    "circuit": ({"pairs": 2, "tested": 3, "draws": 2}, "19 random circuits on 16 pairs"),
    "explain": ({"pairs": 3, "tested": 5}, "six pairs twice, sixteen to test, and 19 random circuits"),
    "edge-rankings": ({"pairs": 1, "tested": 1, "rankings": "EAP"}, "four rankings on 16 pairs, ten budgets each"),
    "flow-route-faithfulness": ({"draws": 2}, "20 random graphs for each setting"),
    "flow-route-heads": ({"n_texts": 2, "length": 24}, "16 texts of each of five domains"),
    "flow-route-task-heads": ({"n_prompts": 2, "draws": 2, "top": 2}, "24 pairs and 20 random sets"),
    "token-erasure-probes": ({"epochs": 1}, "three passes over the texts"),
    "token-erasure-accuracy": ({"depths": "1,2", "epochs": 1}, "eleven depths, three passes"),
    "token-erasure-swap": ({"words": 2}, "24 words"),
    "backcopy-formation": ({"seeds": 1, "conditions": "softmax", "steps": 3}, "three seeds and two conditions"),
    "induction-formation": ({"seeds": 1, "conditions": "heads4", "steps": 3}, "three seeds and conditions"),
    "abrupt-learning": ({"seeds": 1, "classes": "16", "burstiness": "2", "steps": 3}, "three seeds, four conditions"),
    "in-context-automata": ({"seeds": 1, "conditions": "free", "steps": 3}, "three seeds and two conditions"),
    "clamped-formation": ({"seeds": 1, "clamps": "free", "steps": 3}, "three seeds and three clamps"),
    "training-timeline": ({"seeds": 1}, "three seeds"),
    "task-attention": ({"sequences": 8}, "64 sequences"),
    "token-erasure-vocabulary": ({"rows": 20}, "1000 strings"),
}
OF_TOYS = ("training-timeline", "task-attention", "induction-formation", "clamped-formation")  # of trained toys alone
STUDIES = tuple(name for name in CATALOG.names if issubclass(CATALOG.view(name).analysis, Study))
OF_EXPERTS = ("experts", "expert-contrast")  # apply to a mixture alone
NAMES = {
    READER: tuple(
        n
        for n in STUDIES
        if n not in (*OF_EXPERTS, *OF_TOYS, "backcopy-formation", "in-context-automata", "abrupt-learning")
    ),
    MIXTURE: OF_EXPERTS,
}
NAMES |= {kind: tuple(n for n in CATALOG.names if n not in (*STUDIES, *OF_EXPERTS, *OF_TOYS)) for kind in KINDS}
NAMES |= {TOY: tuple(n for n in CATALOG.names if n in OF_TOYS), BACKCOPY: ("backcopy-formation",)}
NAMES |= {AUTOMATA: ("in-context-automata",), CLASSES: ("abrupt-learning",)}
CASES = [(kind, name) for kind, names in NAMES.items() for name in names]


def held(kind: str, name: str, check: Callable) -> Any:
    """One check of one entry on one model."""
    return pytest.param(kind, name, check, id=f"{kind}-{name}-{check.__name__}")


HELD = [held(*case, check) for case in CASES for check in checks_of(CATALOG.view(case[1]).analysis)]


def reader(hf, name):
    """A tiny model that reads text: characters, and the names of the task of indirect objects as one token each."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = sorted({prompt[role] for prompt in ioi_prompts(200) for role in ("answer", "wrong")})
    letters = [" ", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,'\n\"()-:;_=0123456789"][: 95 - len(names)]
    vocabulary = {token: i for i, token in enumerate(["<s>", *letters, *names])}
    spelling = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    spelling.pre_tokenizer = pre_tokenizers.Split(Regex(f"{'|'.join(names)}|[\\s\\S]"), "isolated")
    spelling.decoder = decoders.Fuse()
    spelling.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelling, bos_token="<s>")
    return wrap(hf, tokenizer, name=name)


@pytest.fixture(scope="module")
def case_of(tmp_path_factory):
    """The case of an entry on a model, each run once. What entries must learn from data first is learned into a cache
    of this file's own, from a small corpus."""

    @functools.cache
    def model_of(kind: str):
        if kind == READER:
            model = reader(tiny_hf("llama", n_layers=3), "tiny-reader")
        elif kind == TOY:
            return load(A_TOY)
        elif kind == AUTOMATA:
            return load("toy:automata,symbols=95,length=24,d_model=16,d_mlp=16,steps=5,every=0")
        elif kind == CLASSES:
            return load("toy:gaussian-classes,classes=16,pairs=12,d_model=16,n_heads=2,d_mlp=8,steps=5,every=0")
        elif kind == BACKCOPY:
            return load("toy:bigram-backcopy,characters=95,d_model=16,n_heads=2,n_layers=2,d_mlp=16,steps=5,every=0")
        elif kind == MIXTURE:
            model = reader(random_model("mixtral"), "tiny-mixture")
        else:
            model = tiny_model(kind)
        probes_of_every_kind(model, tmp_path_factory.mktemp("published"))
        return model

    @functools.cache
    def made(kind: str, name: str) -> Case:
        return Case(CATALOG.view(name), model_of(kind), QUICK.get(name, ({}, ""))[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(trainer, "python_corpus", functools.partial(sentences, 24, 60))
        yield made


@pytest.mark.parametrize(("kind", "name", "check"), HELD)
def test_an_entry_holds_the_contract(case_of, kind, name, check):
    check(case_of(kind, name))


@pytest.mark.parametrize("kind", NAMES)
def test_the_same_question_has_the_same_answer_alone_and_beside_all_others(case_of, kind):
    """Bit for bit: those of the prompt share one pass of the same batch, the others run the ones they run alone."""
    cases = [case_of(kind, name) for name in NAMES[kind]]
    union = run(cases[0].model, LONG, [case.analysis for case in cases])
    assert tuple(union) == NAMES[kind]
    for case in cases:
        xr.testing.assert_identical(union[case.view.name], case.result)


def test_every_entry_is_held():
    assert {name for _, name in CASES} == set(CATALOG.names) and len(STUDIES) > 10
    assert set(QUICK) <= set(CATALOG.names) and all(why for _, why in QUICK.values())


def test_views_that_claim_do_claim(case_of):
    """The same click may be no place that a view speaks of; over all heads and positions each of them speaks."""
    silent = []
    for kind, name in CASES:
        case = case_of(kind, name)
        if kind in (READER, "llama") and case.view.claims:
            selections = ({"layer": layer, "head": head, "pos": pos, "query": pos, "key": key, "depth": 1}
                          for layer in range(2) for head in range(4) for pos in (3, 23) for key in (0, 2))  # fmt: skip
            more = {"component": 1, "neuron": 4}
            if not any(case.view.claimed(case.result, selection | more) for selection in selections):
                silent.append(name)
    assert silent == []


def test_a_claims_study_runs_on_it(case_of):
    """One claim of every entry that makes any, tested as its button does."""
    tried = 0
    for kind, name in CASES:
        case = case_of(kind, name)
        if kind in (READER, "llama") and case.view.claims:
            for claim in case.view.claimed(case.result, {"layer": 1, "head": 1, "pos": 3, "query": 5, "key": 2})[:1]:
                analysis, _ = CATALOG.view(claim.study).split(claim.params)
                assert len(analysis.run(case.model, LONG).data_vars) > 0
                tried += 1
    assert tried > 5


def test_keys_are_the_same_in_another_process(case_of):
    """Whoever asks the same on another day, or in a worker, finds the stored result."""
    code = (
        "import json, sys\n"
        "from probes import CATALOG\n"
        "from tests.tiny_models import tiny_model\n"
        "from workbench.models.prompt import Prompt, tokenise\n"
        "model, (ids, params) = tiny_model('llama'), json.loads(sys.argv[1])\n"
        "tokens = tokenise(model, Prompt.ids(ids))\n"
        "found = {n: CATALOG.view(n).analysis.of(p).spec_key(model, tokens) for n, p in params.items()}\n"
        "print(json.dumps(found))"
    )
    cases = {name: case_of("llama", name) for name in NAMES["llama"]}
    asked = json.dumps([list(LONG.token_ids), {name: case.quick for name, case in cases.items()}])
    root = Path(__file__).resolve().parents[1]
    options = {"cwd": root, "env": {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}}
    done = subprocess.run([sys.executable, "-c", code, asked], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {n: case.result.attrs["spec_key"] for n, case in cases.items()}
