"""The card of a model says what its configuration says, what its self-check measured, and what is kept of it."""

import dataclasses

import pytest

from probes import CATALOG
from tests.tiny_models import spelling, tiny_hf
from workbench import load, model_card, run, save, wrap
from workbench.cache import empty, kept
from workbench.errors import InputError, RefusedError
from workbench.files import cache_dir
from workbench.loading.build import positions_of
from workbench.loading.toys import checkpoints, recipes
from workbench.loading.toys.circuits import induction_circuit
from workbench.loading.toys.families import random_model
from workbench.models.prompt import Prompt

IDS = Prompt.ids([4, 33, 50, 33, 12, 7])
SAID = {  # learned positions and tied; experts; a sliding layer, one key/value head, norms on both sides
    "gpt2": {"attention": "4 heads, each with", "keys in sight": "all", "positions": "learned", "experts": "none",
             "norm": "LayerNorm before each sublayer, eps 1e-05", "blocks": "attention, then MLP"},
    "mixtral": {"attention": "grouped queries: 4 heads read 2 key/value heads, 2 to each; softmax",
                "positions": "rotary", "experts": "4 in layers 0,1, 64 neurons each",
                "norm": "RMSNorm before each sublayer"},
    "gemma3": {"attention": "multi-query: 4 heads read one", "keys in sight": "windows of 8 in layers 0",
               "positions": "rotary, base 10,000 (sliding attention)", "norm": "RMSNorm before and behind each"},
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID)
def test_it_says_what_the_configuration_says_and_makes_no_pass(kind, monkeypatch):
    hf, bos = tiny_hf(kind), kind != "mixtral"
    model = wrap(hf, spelling(bos), name=f"tiny-{kind}")
    monkeypatch.setattr(type(model.adapter), "forward", lambda *given: pytest.fail("a pass for a card"))
    card, config = model_card(model, CATALOG), hf.config
    for name, words in SAID[kind].items():
        assert card.facts[name].startswith(words), (name, card.facts[name])
    sizes = card.sizes
    shape = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size, config.vocab_size)
    assert (sizes.n_layers, sizes.n_heads, sizes.d_model, sizes.d_vocab) == shape
    assert card.n_parameters == sum(p.numel() for p in hf.parameters()) and card.nbytes == 4 * card.n_parameters
    assert card.tied == config.tie_word_embeddings and ("tied: one" in card.facts["embeddings"]) == card.tied
    assert card.facts["architecture"] == type(hf).__name__ and card.selfcheck is model.selfcheck
    assert (
        card.facts["weights"].startswith("raw, float32 on cpu")
        and "96 tokens, without a chat" in card.facts["tokenizer"]
    )
    said = "<s> (#0) is put before a text" if bos else "nothing is put before a text, though it has <s> (#0)"
    assert card.facts["BOS"] == said
    refused = {use.name: use.refusal for use in card.refused}
    assert ("experts" in refused) == (kind != "mixtral") and "logit-lens" not in refused
    assert "token-erasure" in {use.name for use in card.waiting} and len(card.analyses) == len(CATALOG)


def test_an_analysis_that_does_not_apply_says_so_in_the_words_of_its_refusal():
    model = load("toy-induction")
    first, *rest = model.selfcheck.items
    for item in (first, *rest):
        model.selfcheck = dataclasses.replace(model.selfcheck, items=tuple(
            dataclasses.replace(one, passed=one is not item, measured=0.5) for one in (first, *rest)))  # fmt: skip
        relies = [kind for kind in CATALOG if item.name in kind.requires and kind.inapplicable(model) is None]
        if relies:
            break
    words = {use.name: use.refusal for use in model_card(model, [*relies, CATALOG.get("neurons")]).refused}
    for name, error in ((relies[0].name, RefusedError), ("neurons", InputError)):  # it has no MLP
        with pytest.raises(error) as refused:
            run(model, IDS, [CATALOG.get(name)])
        assert words[name] == str(refused.value)
    assert item.name in words[relies[0].name] and "has no MLP" in words["neurons"]


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("opt", "learned, a vector for each"), ("xglm", "sinusoidal, a fixed vector for each"),
        ("bloom", "ALiBi: scores fall with the distance"), ("mpt", "ALiBi: scores fall with the distance"),
        ("gptj", "rotary, of the first 4 numbers of each head"), ("phi", "rotary, base 10,000 of 50% of each head"),
        ("falcon", "rotary, base 10,000"), ("llama4", "rotary, base 500,000"),
    ],
)  # fmt: skip
def test_positions_by_family(family, said):
    assert positions_of(random_model(family)).startswith(said)


def test_what_is_kept_is_told_by_the_weights_that_it_names(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    model, other = load("toy-induction"), wrap(induction_circuit(d_vocab=32), None, name="toy:induction")
    assert model_card(model).kept == ()
    for number, of in enumerate((model, model, other)):
        found = run(of, Prompt.ids([3, 7, 9, 3, 7]), [CATALOG.get("induction-on-prompt")])["induction-on-prompt"]
        save(found, cache_dir() / "results" / f"{number:064x}.nc")
    (cache_dir() / "results" / f"{9:064x}.checks").write_text("\n")
    (own,) = model_card(model).kept
    files = [cache_dir() / "results" / f"{number:064x}.nc" for number in (0, 1)]
    assert (own.kind, own.files, own.nbytes) == ("results", 2, sum(file.stat().st_size for file in files))
    folder = checkpoints.Kept(recipes.asked(other.name)[0]).folder
    folder.mkdir(parents=True)
    (folder / "step-000000.safetensors").write_bytes(b"x" * 10)
    assert {one.kind: one.files for one in model_card(other).kept} == {"results": 1, "toys": 1}
    found = {one.kind: one.files for one in kept()}
    assert (found["results"], found["toys"]) == (3, 1)

    with pytest.raises(InputError, match="'result', which is not kept; expected one of results"):
        empty(["result"])
    (gone,) = empty(["results"])
    assert gone.files == 3 and {one.kind: one.files for one in kept()} == {
        k: n for k, n in found.items() if k != "results"
    }
    assert (cache_dir() / "results" / f"{9:064x}.checks").exists()  # how often was tested is not forgotten
    assert model_card(model).kept == () == empty(["results"])
