"""Experts: read and edited as plain Hugging Face does, and a small mixture trained here on two kinds of text."""

from functools import cache

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssForCausalLM, Qwen3MoeConfig

from probes import CausalCheck
from probes.neurons import expert_contrast
from probes.neurons.expert_contrast import (
    ExpertContrast,
    contrast_figure,
    effect_figure,
    matched,
    ranked,
)
from probes.neurons.experts import Experts, share_figure, use_need, weight_figure
from probes.neurons.neurons import VIEW as NEURONS
from probes.neurons.neurons import Neurons, contribution_figure
from tests.tiny_models import spelling, tiny_model
from workbench.errors import InputError, RefusedError
from workbench.intervene import Ablate, Add, Clamp, Expert, ExpertNeurons, Force, Head, Scale, units_of
from workbench.intervene.text import MEAN_HOOKS, phrase
from workbench.loading.pretrained import wrap
from workbench.loading.toys.families import FAMILIES, random_model
from workbench.models.hooks import EXPERT_WEIGHT, EXPERTS_OUT, MLP_OUT, ROUTER, expert_post
from workbench.models.prompt import Prompt
from workbench.models.selfcheck import edits_of
from workbench.observation import Need, keep, observe
from workbench.observation.recording import measure_means

MIXTURES = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "granitemoe", "gpt_oss", "llama4")
IDS = [4, 33, 80, 33, 12, 7, 50, 51, 52, 3, 9, 10, 11, 33]
PROMPT = Prompt.ids(IDS)
WEIGHTS = Need((EXPERT_WEIGHT,), keep, dims="pos expert")
OUT = Need((EXPERTS_OUT,), keep, dims="pos d_model")
SCORES = Need((ROUTER,), keep, dims="pos expert")


@cache
def model(family):
    return wrap(random_model(family), None, name=f"tiny-{family}")


# --- against plain Hugging Face ---------------------------------------------------------------------------------------


def test_a_dense_layer_of_a_mixture_has_neurons_that_are_not_shown():
    """It was told to be no layer with an MLP of neurons."""
    options = {**FAMILIES["qwen3_moe"][1], "num_hidden_layers": 3, "mlp_only_layers": [1]}
    mixed = wrap(AutoModelForCausalLM.from_config(Qwen3MoeConfig(**options)).eval(), None, name="mixed")
    assert mixed.selfcheck.passed and mixed.sizes.experts == (0, 2)
    with pytest.raises(InputError, match=r"neurons are not shown; expected .*mixture of experts \(0, 2\)"):
        Neurons(layer=1).run(mixed, PROMPT)


@pytest.mark.parametrize("family", MIXTURES)
def test_weights_are_the_routers_own(family):
    """What the second model's router returns, read by a plain hook and laid out by hand."""
    hf, seen = random_model(family), []
    routers = [m for name, m in hf.named_modules() if name.split(".")[-1] in ("gate", "router")]
    for router in routers:
        router.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    with torch.no_grad():
        hf(torch.tensor([IDS]), use_cache=False)
    ours = observe(model(family), PROMPT, [WEIGHTS])[WEIGHTS][:, 0]
    for layer, outputs in enumerate(seen):
        whole = [out for out in outputs if not out.is_floating_point()]
        if not whole:
            torch.testing.assert_close(ours[layer], outputs[0])
            continue
        weights = next(out for out in outputs if out.is_floating_point() and out.shape == whole[0].shape)
        for pos in range(len(IDS)):
            for expert, weight in zip(whole[0][pos].tolist(), weights[pos].tolist(), strict=True):
                assert ours[layer, pos, expert] == pytest.approx(weight)
        assert ((ours[layer] > 0).sum(-1) <= whole[0].shape[-1]).all()


def test_weights_need_not_sum_to_one():
    sums = {family: observe(model(family), PROMPT, [WEIGHTS])[WEIGHTS].sum(-1) for family in ("mixtral", "olmoe")}
    torch.testing.assert_close(sums["mixtral"], torch.ones_like(sums["mixtral"]))
    assert (sums["olmoe"] < 0.99).any()


def test_switching_off_equals_a_bias_of_minus_infinity():
    """GPT-OSS's router has a bias: the same edit written into the weights of a second model."""
    hf = random_model("gpt_oss")
    with torch.no_grad():
        hf.model.layers[1].mlp.router.bias[2] = -1e9
        own = hf(torch.tensor([IDS]), use_cache=False).logits[0]
    ours = observe(model("gpt_oss"), PROMPT, positions="all", interventions=[Ablate(Expert(1, 2))]).logits[0]
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)
    assert (ours - observe(model("gpt_oss"), PROMPT, positions="all").logits[0]).abs().max() > 1e-4


@pytest.mark.parametrize("family", MIXTURES)
def test_the_router_follows_its_own_rule_without_an_expert(family):
    before = observe(model(family), PROMPT, [WEIGHTS, SCORES])
    used = int((before[WEIGHTS][0, 0] > 0).sum(0).argmax())
    off = observe(model(family), PROMPT, [WEIGHTS], interventions=[Ablate(Expert(0, used))])
    assert not off[WEIGHTS][0, 0, :, used].any()
    assert (off.logits[0] - before.logits[0]).abs().max() > 1e-5
    chosen = (before[WEIGHTS][0, 0] > 0).sum(-1)
    assert ((off[WEIGHTS][0, 0] > 0).sum(-1) == chosen).all()  # another one takes the place
    spared = before[WEIGHTS][0, 0, :, used] == 0
    after, whole = off[WEIGHTS][0, 0][spared], before[WEIGHTS][0, 0][spared]
    torch.testing.assert_close(after / after.sum(-1, keepdim=True), whole / whole.sum(-1, keepdim=True))
    # a softmax over all experts gives the others its share, one over the chosen has none to give
    assert (after.sum(-1) >= whole.sum(-1) - 1e-6).all()


@pytest.mark.parametrize("family", MIXTURES)
def test_a_forced_expert_has_the_largest_weight(family):
    idle = int((observe(model(family), PROMPT, [WEIGHTS])[WEIGHTS][0, 0] > 0).sum(0).argmin())
    forced = observe(model(family), PROMPT, [WEIGHTS], interventions=[Force(Expert(0, idle), positions=(3, -1))])
    weights = forced[WEIGHTS][0, 0]
    assert weights[[3, -1]].argmax(-1).tolist() == [idle, idle]


def test_where_all_experts_are_chosen_weights_are_not_taken_for_scores():
    """Both have the same shape then; the weights of GPT-OSS's chosen experts sum to 1."""
    config = random_model("gpt_oss").config
    config.num_experts_per_tok = config.num_local_experts
    hf = GptOssForCausalLM(config).eval()
    wrapped = wrap(hf, None, name="all")
    assert wrapped.selfcheck.passed, wrapped.selfcheck.summary
    weights = observe(wrapped, PROMPT, [WEIGHTS])[WEIGHTS]
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, len(IDS)))


def test_padding_is_no_use_of_an_expert():
    need = use_need(model("mixtral").sizes)
    alone = observe(model("mixtral"), Prompt.ids(IDS[:5]), [need])[need][:, 0]
    beside = observe(model("mixtral"), [Prompt.ids(IDS[:5]), PROMPT], [need])[need][:, 0]
    torch.testing.assert_close(alone, beside)
    torch.testing.assert_close(alone.sum(-1), torch.full((2,), 2.0))  # two experts a token


# --- neurons of single experts ----------------------------------------------------------------------------------------


def posts(family):
    """Activations of all experts' neurons, NaN where a token takes another: layer expert pos neuron."""
    needs = [Need((expert_post(expert),), keep, dims="pos neuron") for expert in range(4)]
    seen = observe(model(family), PROMPT, [*needs, WEIGHTS, OUT], positions="all")
    return torch.stack([seen[need][:, 0] for need in needs], 1), seen[WEIGHTS][:, 0], seen[OUT][:, 0], seen.logits[0]


def partly_taken():
    """An expert of mixtral's last layer that some tokens take, and others do not."""
    taken = (posts("mixtral")[1][1] > 0).sum(0)
    return int(((taken > 2) & (taken < len(IDS))).nonzero()[0])


def down_of(hf, layer):
    """The batched W_out of one layer, as the library lays it out."""
    name = next(n for n, _ in hf.named_parameters() if n.endswith("experts.down_proj") and f".{layer}." in n)
    return hf.get_parameter(name)


@pytest.mark.parametrize("family", MIXTURES)
def test_neurons_of_a_tokens_experts_add_up_to_what_they_give(family):
    """1e-5 is rounding of sums of 64 products. In families without a shared expert that is the whole MLP."""
    found, weights, out, logits = posts(family)
    torch.testing.assert_close(logits, observe(model(family), PROMPT, positions="all").logits[0], atol=0, rtol=0)
    assert torch.equal(found.isnan().any(-1), (weights <= 0).movedim(-1, 1))
    for layer in range(2):
        total = torch.zeros_like(out[layer])
        for expert in range(4):
            own, factor = model(family).expert_weights(layer, expert), weights[layer, :, expert, None]
            factor = (factor > 0).float() if own.scaled_inside else factor
            total += factor * (found[layer, expert].nan_to_num(0.0) @ own.W_out + own.b_out)
        torch.testing.assert_close(total, out[layer], atol=1e-5, rtol=1e-5)
        if family not in ("qwen2_moe", "llama4"):
            whole = Need((MLP_OUT,), keep, dims="pos d_model", layers=(layer,))
            torch.testing.assert_close(
                total, observe(model(family), PROMPT, [whole])[whole][0, 0], atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("family", MIXTURES)
def test_a_neuron_of_an_expert_is_taken_away_as_from_the_weights(family):
    """Against a second model whose W_out reads nothing of it; another expert's neuron of that number stays."""
    _, weights, _, before = posts(family)
    expert = int((weights[1] > 0).sum(0).argmax())
    hf = random_model(family)
    with torch.no_grad():
        down = down_of(hf, 1)
        width = model(family).sizes.d_expert
        (down[expert, 5] if down.shape[1] == width and family in ("gpt_oss", "llama4") else down[expert, :, 5]).zero_()
        own = hf(torch.tensor([IDS]), use_cache=False).logits[0]
    ours = observe(model(family), PROMPT, positions="all", interventions=[Ablate(ExpertNeurons(1, expert, (5,)))])
    torch.testing.assert_close(ours.logits[0], own, atol=1e-5, rtol=1e-5)
    assert (own - before).abs().max() > 1e-3
    law = next(item for item in model(family).selfcheck.items if item.name == edits_of(expert_post(0)))
    assert law.passed and law.measured < 1e-5


def test_clamped_scaled_and_at_some_tokens_alone():
    """Tokens that take another expert stay to the bit; adding and scaling meet no NaN of theirs."""
    _, weights, _, before = posts("mixtral")
    expert = partly_taken()
    taken = weights[1, :, expert] > 0
    unit = ExpertNeurons(1, expert, (3, 7))
    for edit in (Clamp(unit, 4.0), Add(unit, -2.0), Scale(unit, 3.0)):
        changed = observe(model("mixtral"), PROMPT, positions="all", interventions=[edit]).logits[0] != before
        assert torch.equal(changed.any(-1), taken), str(edit)
    first = int(taken.nonzero()[0])
    at = observe(model("mixtral"), PROMPT, positions="all", interventions=[Clamp(unit, 4.0, positions=(first,))])
    assert (at.logits[0] != before).any(-1).nonzero()[:, 0].tolist() == [first]
    both = observe(model("mixtral"), PROMPT, positions="all", interventions=[Ablate(unit), Scale(Head(0, 1), 1.0)])
    assert (both.logits[0] != before).any(-1)[taken].any()


@pytest.mark.parametrize("family", ["mixtral", "llama4"])
def test_the_view_of_neurons_shows_those_of_the_tokens_experts(family):
    found, weights, out, _ = posts(family)
    result = Neurons(layer=1, pos=6, top_k=200).run(model(family), PROMPT)
    taken = (weights[1, 6] > 0).nonzero()[:, 0].tolist()
    width = model(family).sizes.d_expert
    assert sorted(set(result["of_expert"].values.tolist())) == taken and result.sizes["neuron"] == width * len(taken)
    total = torch.zeros(32)
    for number, expert, act, size in zip(
        *(result[name].values for name in ("neuron", "of_expert", "activation", "contribution")), strict=True
    ):
        own, factor = model(family).expert_weights(1, int(expert)), float(weights[1, 6, expert])
        assert number // width == expert and float(act) == float(found[1, expert, 6, number % width])
        writes = float(act) * (1.0 if own.scaled_inside else factor) * own.W_out[number % width]
        assert float(size) == pytest.approx(float(writes.norm()), rel=1e-4, abs=1e-7)
        total += writes
    torch.testing.assert_close(total, out[1, 6], atol=1e-5, rtol=1e-5)
    assert (np.diff(result["contribution"].values) <= 0).all() and float(result["share"]) == pytest.approx(1)
    first, width = int(result["neuron"].values[0]), int(width)
    name = f"L1E{first // width}N{first % width}"
    assert NEURONS.claimed(result, {})[0].params["units"] == name
    assert name in contribution_figure(result).to_json()


def test_a_claim_about_a_neuron_of_an_expert_is_checked_against_its_like():
    expert = int((posts("mixtral")[1][1, -1] > 0).nonzero()[0])
    result = CausalCheck(units=f"L1E{expert}N7").run(model("mixtral"), PROMPT)
    edits = [Ablate(ExpertNeurons(1, expert, (7,)))]
    before, after = (observe(model("mixtral"), PROMPT, interventions=i).log_probs[0][-1] for i in ([], edits))
    top = int(before.argmax())
    assert float(result["effect"]) == pytest.approx(float(after[top] - before[top]), abs=1e-5)
    assert "neurons of experts" in result.attrs["summary"]


def test_what_has_no_value_is_no_mean(monkeypatch):
    unit = ExpertNeurons(0, 1, (3,))
    assert units_of("L0E1N3 L0E1N3,4") == (unit, ExpertNeurons(0, 1, (3, 4))) and str(unit) == "L0E1N3"
    assert phrase("L0E1N3").intervention(model("mixtral"), None) == Ablate(unit)
    with pytest.raises(InputError):
        phrase("L0E1N3 mean")
    with pytest.raises(InputError, match="neurons 0 to 63"):
        Ablate(ExpertNeurons(0, 1, (64,))).edits(model("mixtral"))
    monkeypatch.setattr("workbench.loading.expert_neurons._BY_PAIRS", ())
    other = wrap(random_model("olmoe"), None, name="otherwise")
    for what in (lambda: Neurons().run(other, PROMPT), lambda: Ablate(unit).edits(other)):
        with pytest.raises(InputError, match="whose neurons are shown"):
            what()


# --- what is refused, and words ---------------------------------------------------------------------------------------


def test_neurons_belong_to_experts():
    with pytest.raises(InputError, match="mixture of 4 experts"):
        observe(model("olmoe"), PROMPT, interventions=[Ablate(units_of("L0N3")[0])])
    for analysis in (Experts(), ExpertContrast()):
        with pytest.raises(InputError, match="one MLP in every layer"):
            analysis.run(tiny_model("llama"), PROMPT)


def test_means_leave_out_the_neurons_that_a_mixture_has_not():
    means = measure_means(model("mixtral"), hooks=MEAN_HOOKS, n_tokens=64)
    head = phrase("L0H1 mean").intervention(model("mixtral"), lambda: means)
    before, after = (observe(model("mixtral"), PROMPT, interventions=edits).logits[0] for edits in ([], [head]))
    assert (before - after).abs().max() > 1e-5


def test_a_causal_check_of_an_expert_points_to_the_study():
    with pytest.raises(InputError, match="expert-contrast"):
        CausalCheck(units="L0E1").run(model("mixtral"), PROMPT)


def test_no_token_is_left_without_an_expert():
    with pytest.raises(InputError, match="left to every token"):
        observe(model("mixtral"), PROMPT, interventions=[Ablate(Expert(0, expert)) for expert in range(4)])
    for unit in (Expert(2, 0), Expert(0, 4)):
        with pytest.raises(InputError):
            observe(model("mixtral"), PROMPT, interventions=[Ablate(unit)])
    with pytest.raises(InputError, match="no experts"):
        observe(tiny_model("llama"), PROMPT, interventions=[Ablate(Expert(0, 0))])


def test_experts_in_words():
    assert units_of("L1E3, L0H2")[0] == Expert(1, 3) and str(Expert(1, 3)) == "L1E3"
    assert phrase("L1E3").intervention(model("mixtral"), None) == Ablate(Expert(1, 3))
    forced = phrase("L1E3 forced")
    assert forced.intervention(model("mixtral"), None) == Force(Expert(1, 3)) and str(forced) == "L1E3 forced"
    assert forced.code() == "Force(Expert(layer=1, expert=3))" and forced.words == ("Force", "Expert")
    for wrong in ("L1E3 mean", "L1H2 forced"):
        with pytest.raises(InputError):
            phrase(wrong)


# --- the view ---------------------------------------------------------------------------------------------------------


def test_experts_that_are_chosen_as_often_are_all_counted():
    """One of those that a token takes was said to be the most often chosen, of a prompt of one token."""
    result = Experts().run(tiny_model("mixtral"), [5])
    n = int((result["use"] == 1).sum())
    assert n > 1 and f" {n - 1} more (100% of 1 token, each)." in result.attrs["summary"]


def test_the_view_counts_tokens():
    result = Experts().run(model("olmoe"), PROMPT)
    weight = observe(model("olmoe"), PROMPT, [WEIGHTS])[WEIGHTS][:, 0].numpy()
    np.testing.assert_allclose(result["use"], (weight > 0).mean(1))
    np.testing.assert_allclose(result["use"].sum("expert"), 2.0)
    np.testing.assert_allclose(result["use_null"], 0.5)
    assert share_figure(result).data[0].z.shape == (2, 4)
    np.testing.assert_allclose(weight_figure(result, {"layer": 1, "expert": 2}).data[0].y, weight[1, :, 2])
    assert "A token takes 2 of 4 experts" in result.attrs["summary"]


# --- two kinds of text, on a mixture trained here ---------------------------------------------------------------------


def texts(kind, n, seed=0, length=40):
    """Letters that follow one another by a rule of their kind, one step in ten at random: small ones, or digits."""
    random = np.random.default_rng((seed, kind == "digits"))
    signs = "0123456789+-*/=" if kind == "digits" else "abcdefghijklmno"
    found = []
    for _ in range(n):
        at, text = int(random.integers(len(signs))), ""
        for _ in range(length):
            text += signs[at]
            at = (at * 2 + 3) % len(signs) if random.random() > 0.1 else int(random.integers(len(signs)))
        found.append(text)
    return found


KIND = 0  # the dimension of the residual stream that says which kind a token is of


@pytest.fixture(scope="module")
def trained():
    """A mixture of 8 experts a layer that reads both kinds. By construction experts 0 to 3 get letters, the others
    digits: a dimension that nothing writes holds the kind, and the routers look at it."""
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=96, hidden_size=32, intermediate_size=32, num_attention_heads=4, num_key_value_heads=2,
        num_hidden_layers=2, max_position_embeddings=64, num_local_experts=8, num_experts_per_tok=2,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    hf, tokenizer = transformers.MixtralForCausalLM(config).float(), spelling()
    ids = torch.tensor([[0, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in corpus()])
    letters = torch.tensor([tokenizer.convert_tokens_to_ids(sign) for sign in "abcdefghijklmno"])
    with torch.no_grad():
        hf.model.embed_tokens.weight[:, KIND] = -1.0
        hf.model.embed_tokens.weight[letters, KIND] = 1.0
        for layer in hf.model.layers:
            layer.mlp.gate.weight.copy_(0.02 * torch.randn(8, 32))
            layer.mlp.gate.weight[:, KIND] = torch.tensor([1.0] * 4 + [-1.0] * 4)
            layer.mlp.gate.requires_grad_(False)
            layer.self_attn.o_proj.weight[KIND] = 0
            layer.mlp.experts.down_proj[:, KIND] = 0
    optimiser = torch.optim.Adam([p for p in hf.parameters() if p.requires_grad], lr=3e-3)
    for step in range(200):
        batch = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(step))[:16]]
        loss = hf(batch, labels=batch, use_cache=False).loss
        optimiser.zero_grad()
        loss.backward()
        hf.model.embed_tokens.weight.grad[:, KIND] = 0
        for layer in hf.model.layers:
            layer.self_attn.o_proj.weight.grad[KIND] = 0
            layer.mlp.experts.down_proj.grad[:, KIND] = 0
        optimiser.step()
    assert loss.item() < 1.6  # of ln 30 = 3.4 nats: it has learned both rules
    return wrap(hf.eval(), tokenizer, name="two-kinds")


def corpus():
    """What it is trained on."""
    return [*texts("letters", 128, seed=1), *texts("digits", 128, seed=1)]


@pytest.fixture(scope="module")
def contrast(trained):
    study = ExpertContrast(texts=20, length=32, top=8, draws=19)
    kinds = {"letters": texts("letters", 24, seed=2), "digits": texts("digits", 24, seed=2)}
    return list(study.over(trained, kinds))


def test_the_planted_experts_are_found_and_needed(contrast):
    """By use alone; without them letters cost more than without any random set of equal use, and digits do not."""
    first, last = contrast[0], contrast[-1]
    assert len(contrast) == 19 + 1 and np.isnan(first["effect_p"]).all()
    np.testing.assert_array_equal(last["changed"], [[1, 1, 1, 1, 0, 0, 0, 0]] * 2)
    assert (last["contrast_q"].where(last["use"].max("domain") > 0.2) < 0.05).sum() >= 8
    effect, p = last["effect"].values, last["effect_p"].values
    assert effect[0] > 0.2 and effect[0] > 3 * abs(effect[1]) and p[0] <= 0.1
    assert effect[0] > float(last["random_effect"][:, 0].max())
    assert abs(float(last["random_use"].mean()) - float(last["changed_use"])) < 0.05
    assert "(p = 0.1, the smallest that 19 can give)" in last.attrs["summary"]  # two-sided: none is below 2 / 20
    assert "switched off" in last.attrs["summary"] and contrast_figure(last).data and effect_figure(last).data


def test_forcing_the_planted_experts_costs_the_other_kind(trained):
    """Digits are handed to experts that have seen none."""
    study = ExpertContrast(texts=20, length=32, top=4, draws=3, how="forced")
    kinds = {"letters": texts("letters", 24, seed=2), "digits": texts("digits", 24, seed=2)}
    effect = list(study.over(trained, kinds))[-1]["effect"].values
    assert effect[1] > 0.1 and effect[1] > 2 * abs(effect[0])


def test_where_kinds_do_not_differ_it_is_said(trained):
    kinds = {"one": texts("letters", 24, seed=3), "other": texts("letters", 24, seed=4)}
    result = list(ExpertContrast(texts=20, length=32, top=2, draws=3).over(trained, kinds))[-1]
    assert not (result["contrast_q"] < 0.05).any() and result.attrs["summary"].startswith("0 of 16 experts")
    assert "no test can call" not in result.attrs["summary"]  # 10 texts of each kind rank: enough
    few = next(ExpertContrast(texts=10, length=32, top=2, draws=3).over(trained, kinds)).attrs["summary"]
    assert "With 5 and 5 texts no test can call fewer than 3 experts at once of 16" in few


def test_the_ranking_leaves_half_of_a_layer():
    values = np.array([[9.0, 8.0, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0]])
    sizes = model("mixtral").sizes
    assert ranked(values, 3, sizes) == [(0, 0), (0, 1), (1, 3)]
    with pytest.raises(RefusedError, match="at most 4"):
        ranked(values, 5, sizes)
    drawn = matched(values, [(0, 0), (1, 3)], np.random.default_rng(0))
    assert len(set(drawn)) == 2 and not {(0, 0), (1, 3)} & set(drawn)


def test_an_expert_that_an_intervention_has_switched_off_is_none_to_compare_with(trained, monkeypatch):
    """In random sets its removal was a removal of nothing, so that the others' looked large beside it."""
    kinds = {"letters": texts("letters", 24, seed=2), "digits": texts("digits", 24, seed=2)}
    uses = []
    monkeypatch.setattr(expert_contrast, "matched", lambda *given: uses.append(given[0]) or matched(*given))
    edited = trained.edited([Ablate(Expert(0, 1)), Ablate(Expert(1, 2), positions=(1,)), Force(Expert(1, 3))])
    for how, gone in (("off", [[0, 1]]), ("forced", [])):  # to force it brings it back
        uses.clear()
        found = next(ExpertContrast(texts=10, length=32, top=3, draws=2, how=how).over(edited, kinds))
        assert all(np.argwhere(np.isnan(use)).tolist() == gone for use in uses) and len(uses) == 2
        assert not found["use"].isnull().any() and not found["contrast"].isnull().any()
    values = np.array([[9.0, np.nan, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0]])
    assert ranked(values, 3, model("mixtral").sizes) == [(0, 0), (0, 2), (1, 3)]
    with pytest.raises(RefusedError, match="Change fewer"):
        matched(values, [(0, 0), (0, 2), (1, 3), (1, 2)], np.random.default_rng(0))
