"""Active-dormant heads: a planted one, laws, ablation against a double loop, alike domains, cancelling, bad input."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn.functional import log_softmax

from probes.attention.active_dormant.ablation import ablated_loss, base_pass
from probes.attention.active_dormant.active_dormant import VIEW, ActiveDormant
from probes.attention.active_dormant.activity import needs as needs_of
from probes.attention.active_dormant.contrast import Activity, Difference, heads_to_ablate
from probes.attention.active_dormant.verdict import verdict
from tests.tiny_models import tiny_hf, tiny_model
from workbench import PATTERN, Need, Prompt, Z, corpora, keep, observe, save
from workbench.corpora import Document
from workbench.errors import Cancelled, InputError, RefusedError, UnavailableError
from workbench.intervene import Ablate, Head
from workbench.loading.pretrained import wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.prompt import tokenise
from workbench.observation.recording import measure_means

N_CTX, N_VOCAB, BOS = 32, 32, 0
SLEEPY, LIVELY = range(1, 14), range(14, 27)  # letters a-m and n-z
SMALL = {"texts": 16, "length": 24, "ablation_texts": 16, "random_heads": 1}


class Letters:
    """A tokenizer of small letters: a is 1, z is 26; BOS is 0."""

    bos_token_id = BOS
    all_special_ids = (BOS,)

    def encode(self, text, add_special_tokens=False):
        return [BOS] * add_special_tokens + [(ord(letter) - 97) % 26 + 1 for letter in text]

    def decode(self, ids, **options):
        return "".join("<s>" if i == BOS else chr(i + 96) for i in ids)


def planted() -> ToyTransformer:
    """L1H0 sends letters a-m to BOS, whose value is zero, and copies n-z into the prediction; the rest is idle."""
    d_head = N_CTX + 1
    model = ToyTransformer(ToyConfig(2, 2, 2 * N_VOCAB + N_CTX, d_head, N_VOCAB, N_CTX))
    position, prediction = slice(N_VOCAB, N_VOCAB + N_CTX), slice(N_VOCAB + N_CTX, 2 * N_VOCAB + N_CTX)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.weight[:, :N_VOCAB] = torch.eye(N_VOCAB)
        model.positions.weight[:, position] = torch.eye(N_CTX)
        model.unembed.weight[:, prediction] = torch.eye(N_VOCAB)
        block = model.blocks[1]
        block.W_Q[0, position, :N_CTX] = 100 * torch.eye(N_CTX)
        block.W_K[0, position, :N_CTX] = torch.eye(N_CTX)
        block.W_Q[0, list(SLEEPY), N_CTX] = 400
        block.W_K[0, BOS, N_CTX] = 1
        block.W_V[0, 1:N_VOCAB, 1:N_VOCAB] = torch.eye(N_VOCAB - 1)
        block.W_O[0, :N_VOCAB, prediction] = 3 * torch.eye(N_VOCAB)
    return model


def texts(letters: range, n: int, seed: int, length: int = 30) -> list[str]:
    """Random letters, each twice: a copy of the current letter is right every other time."""
    random = np.random.default_rng(seed)
    rows = random.choice(np.array(letters), (n, length // 2)).repeat(2, axis=1)
    return ["".join(chr(i + 96) for i in row) for row in rows]


@pytest.fixture(scope="module")
def toy():
    return wrap(planted(), Letters(), name="planted")


@pytest.fixture(scope="module")
def result(toy):
    *_, last = ActiveDormant(**SMALL).over(toy, {"sleepy": texts(SLEEPY, 18, 0), "lively": texts(LIVELY, 18, 1)})
    return last


# --- planted --------------------------------------------------------------------------------------------------------


def test_the_planted_head_is_the_only_one_that_passes(result):
    np.testing.assert_array_equal(result["dormant_share"].values[:, 1, 0], [1, 0])
    assert result["contrast"].values[1, 0] == 1
    unseen = 1 - 0.05 ** (1 / 16)  # of sixteen texts that are all alike, a share that would not show once in twenty
    assert result["contrast_low"].values[1, 0] == pytest.approx(1 - unseen * np.sqrt(2), abs=1e-9)
    assert result["contrast_high"].values[1, 0] == 1
    assert result["contrast_q"].values[1, 0] < 0.001
    np.testing.assert_array_equal(result["candidate"].values, [[0, 0], [1, 0]])
    np.testing.assert_allclose(result["mean_sink_attention"].values[0, 1, 0], 1, atol=1e-6)
    np.testing.assert_allclose(result["output_norm"].values[1, :, 1, 0], 3, rtol=1e-4)


def test_removing_it_costs_nothing_where_it_sleeps_and_something_where_it_works(result):
    np.testing.assert_allclose(result["ablation_dloss"].values[0, 1, 0], 0, atol=1e-6)
    assert result["ablation_dloss_low"].values[1, 1, 0] > 0.1
    control = int(result["control_layer"][1, 0]), int(result["control_head"][1, 0])
    assert control != (1, 0)
    np.testing.assert_allclose(result["ablation_dloss"].values[:, control[0], control[1]], 0, atol=1e-6)
    assert (~np.isnan(result["text_ablation_dloss"].values[:, :, 1, 0])).sum() == 2 * SMALL["ablation_texts"]
    said = verdict(result, 1, 0)
    assert "100% of sleepy" in said and "The data support" in said
    assert "do not support" in verdict(result, *control)


def test_the_result_draws_saves_and_states_its_conventions(result, tmp_path):
    save(result, tmp_path / "result.nc")
    drawn = [figure(result) for figure in VIEW.figures]
    drawn += [detail(result, selection) for detail in VIEW.details for selection in ({}, {"layer": 0, "head": 1})]
    for figure in drawn:
        title = figure.layout.title.text.replace("<br>", " ")
        assert figure.data and "T = 24" in title and "0.8" in title and "0.2" in title and "epsilon = 0.3" in title
    provenance = json.loads(result.attrs["provenance"])
    assert len(provenance["texts"]) == 32 and "reference" in result.attrs["reference"]


# --- laws and slow routes -------------------------------------------------------------------------------------------


def test_activity_equals_a_plain_loop_over_kept_activations():
    model = tiny_model("llama")
    prompts = [Prompt.ids([0, *[7, 9] * 16]), Prompt.ids(range(1, 26))]
    needs = needs_of(epsilon=0.1)
    kept = Need((PATTERN,), keep, dims="head query key"), Need((Z,), keep, dims="pos head d_head")
    seen = observe(model, prompts, [*needs, *kept], positions="none")
    for row, n in enumerate((33, 25)):
        for layer, head in np.ndindex(2, 4):
            pattern = seen[kept[0]][layer, row, head, :n, :n].double().numpy()
            sinks = {0}
            for key in range(1, n - 16):
                if sum(pattern[i, key] for i in range(key + 1, n)) / (n - key - 1) > 0.1:
                    sinks.add(key)
            mass = [sum(pattern[q, k] for k in sinks) for q in range(1, n)]
            np.testing.assert_allclose(seen[needs[0]][layer, row, head], np.mean(mass), rtol=1e-4)
            out = seen[kept[1]][layer, row, 1:n, head].double() @ model.weights(layer).W_O[head].double()
            np.testing.assert_allclose(seen[needs[1]][layer, row, head], out.norm(dim=-1).mean(), rtol=1e-4)


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_ablation_equals_a_plain_double_loop(tiny, how):
    """Every text alone, the whole pass, z written by hand, surprisal summed token by token."""
    tokens = [tokenise(tiny, Prompt.ids(torch.randint(1, 90, (n,)).tolist())) for n in (12, 12, 9)]
    means = measure_means(tiny, n_tokens=64, piece=16) if how == "mean" else None
    base, states = base_pass(tiny, tokens, [1])
    restarted = ablated_loss(tiny, tokens, Head(1, 2), states[1], means)
    whole = ablated_loss(tiny, tokens, Head(1, 2), None, means)
    np.testing.assert_array_equal(restarted, whole)
    value = 0.0 if means is None else means.mean(Z, 1, tiny)[2]
    expected, unchanged = [], []
    for text in tokens:
        unchanged.append(plain_loss(tiny, text, None))
        expected.append(plain_loss(tiny, text, value))
    np.testing.assert_allclose(base, unchanged, rtol=1e-5)
    np.testing.assert_allclose(restarted, expected, rtol=1e-5)
    assert np.abs(np.array(expected) - unchanged).max() > 1e-4


def plain_loss(model, text, value) -> float:
    def write(z, hook):
        z = z.clone()
        start = 0 if isinstance(value, float) else 1  # position 0 keeps its own under mean ablation
        for position in range(start, z.shape[1]):
            z[0, position, 2] = value
        return z

    point = model.adapter.point(Z, 1)
    handle = None if value is None else point.add_hook(write)
    try:
        with torch.no_grad():
            logits = model.adapter.forward(torch.tensor([text.ids]))[0]
    finally:
        if handle is not None:
            model.adapter.remove(point, handle)
    loss = 0.0
    for position in range(len(text) - 1):
        loss -= float(log_softmax(logits[position].double(), -1)[text.ids[position + 1]])
    return loss / (len(text) - 1)


def test_interventions_reach_every_pass_exactly_as_by_hand(toy, result, tmp_path):
    """The planted head ablated in the run, and a toy whose head has no output weights: the same, ablations too."""
    for name, letters, seed in (("sleepy", SLEEPY, 0), ("lively", LIVELY, 1)):
        (tmp_path / name).mkdir()
        for i, text in enumerate(texts(letters, 14, seed)):
            (tmp_path / name / f"{i:02}.txt").write_text(text)
    folders = {"first": str(tmp_path / "sleepy"), "second": str(tmp_path / "lively")}
    study = ActiveDormant(**{**SMALL, **folders, "ablate": "all"})
    edit = Ablate(Head(1, 0), "zero")
    edited = study.run(toy, interventions=[edit])
    without = planted()
    with torch.no_grad():
        without.blocks[1].W_O[0] = 0
    by_hand = study.run(wrap(without, Letters(), name="without"))
    xr.testing.assert_equal(edited, by_hand)
    assert (edited["output_norm"].values[..., 1, 0] == 0).all() and (result["output_norm"].values[1, :, 1, 0] > 2).all()
    np.testing.assert_array_equal(edited["ablation_dloss"].values[:, 1, 0], 0)  # nothing is left to remove
    assert not np.isnan(edited["mean_ablation_dloss"].values).any()
    assert json.loads(edited.attrs["provenance"])["interventions"] == [str(edit)]
    assert edited.attrs["spec_key"] == study.spec_key(toy, None, [edit]) != study.spec_key(toy, None)


# --- controls -------------------------------------------------------------------------------------------------------


def test_two_halves_of_one_domain_show_no_contrast(toy):
    mixed = texts(range(1, 27), 40, 2)
    first, *_ = ActiveDormant(**{**SMALL, "ablate": "none"}).over(toy, {"one": mixed[:20], "other": mixed[20:]})
    assert first["candidate"].values.max() == 0
    assert np.nanmin(first["contrast_q"].values) > 0.05
    assert "do not support" in verdict(first, 1, 0) or "not ablated" in verdict(first, 1, 0)


def test_domains_in_the_other_order_turn_the_contrast_round(toy, result):
    swapped, *_ = ActiveDormant(**SMALL).over(toy, {"lively": texts(LIVELY, 14, 1), "sleepy": texts(SLEEPY, 14, 0)})
    np.testing.assert_allclose(swapped["contrast"], -result["contrast"], atol=1e-12)
    np.testing.assert_array_equal(swapped["dormant_share"].values[::-1], result["dormant_share"].values)


def test_the_head_that_differs_most_is_ablated_even_where_none_passes(toy):
    attention, norm = np.full((2, 12, 2, 3), 0.5), np.ones((2, 12, 2, 3))
    attention[0, :3, 1, 2], norm[0, :3, 1, 2] = 0.9, 0.1  # dormant on three texts of the first domain
    activity = Activity(attention, norm, attention_above=0.8, output_below=0.2, seed=0)
    assert not activity.contrast.passes.any() and not activity.sink_contrast.passes.any()
    assert activity.contrast.value[1, 2] == 0.25
    head, control = heads_to_ablate(toy, activity, "candidates", leading=0, random_heads=0)
    assert head == Head(1, 2) and control == Head(*map(int, activity.control[:, 1, 2])) != head


# --- several passes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "measured"), [("gemma3", 4), ("phi3", 0)])
def test_heads_whose_window_hides_the_first_token_are_left_out_in_words(kind, measured):
    """Their shares were said as nan, and they counted among the heads that do not pass."""
    model = wrap(tiny_hf(kind), Letters(), name=kind)
    few = {"texts": 10, "length": 24, "ablation_texts": 2, "random_heads": 0, "ablate": "none"}
    *_, found = ActiveDormant(**few).over(model, {"sleepy": texts(SLEEPY, 10, 0), "lively": texts(LIVELY, 10, 1)})
    said, of_one = found.attrs["summary"], verdict(found, 0, 0)
    assert "nan" not in said + of_one + verdict(found, 1, 0)
    assert of_one.startswith("L0H0 is not told about: where a layer's window is shorter")
    if measured:
        assert "0 of 4 heads pass" in said and "Of 4 heads nothing is told" in said
    else:
        assert said.startswith("Of no head it is told whether it is dormant")


def test_it_can_be_cancelled_between_batches_and_keeps_what_is_done(toy):
    domains = {"sleepy": texts(SLEEPY, 12, 0), "lively": texts(LIVELY, 12, 1)}
    shares, kept = [], []

    def stop_after_a_while(share):
        shares.append(share)
        if len(kept) >= 2:
            raise Cancelled("stopped by the user")

    study = ActiveDormant(**{**SMALL, "ablate": "all"})
    with pytest.raises(Cancelled):
        for partial in study.over(toy, domains, progress=stop_after_a_while):
            kept.append(partial)
    assert len(kept) == 2
    assert np.isnan(kept[0]["ablation_dloss"].values).all()
    done = ~np.isnan(kept[1]["ablation_dloss"].values).all(0)
    assert done.tolist() == [[True, False], [False, False]]
    assert shares == sorted(shares) and 0 < shares[-1] < 1
    *_, last = study.over(toy, domains)
    np.testing.assert_array_equal(last["ablation_dloss"].values[:, 0, 0], kept[1]["ablation_dloss"].values[:, 0, 0])


def test_a_named_head_is_ablated_with_its_control_and_nothing_else_on_request(toy):
    domains = {"sleepy": texts(SLEEPY, 12, 0), "lively": texts(LIVELY, 12, 1)}
    *_, last = ActiveDormant(**{**SMALL, "ablate": "L0H1", "random_heads": 0}).over(toy, domains)
    done = ~np.isnan(last["ablation_dloss"].values).all(0)
    control = int(last["control_layer"][0, 1]), int(last["control_head"][0, 1])
    assert {tuple(i) for i in np.argwhere(done).tolist()} == {(0, 1), control}


def test_it_runs_over_folders_and_says_what_it_skipped(toy, tmp_path):
    for name, letters in (("sleepy", SLEEPY), ("lively", LIVELY)):
        (tmp_path / name).mkdir()
        for i, text in enumerate([*texts(letters, 12, 3), "abc"]):
            (tmp_path / name / f"{i:02}.txt").write_text(text, encoding="utf-8")
    params = {**SMALL, "first": str(tmp_path / "sleepy"), "second": str(tmp_path / "lively"), "ablate": "none"}
    study = ActiveDormant(**params)
    last = study.run(toy)
    assert last["n_skipped"].values.tolist() == [1, 1] and last["n_texts"].values.tolist() == [12, 12]
    assert all(name.endswith("12.txt") for names in json.loads(last.attrs["skipped"]).values() for name in names)
    assert last["candidate"].values[1, 0] == 1
    assert last["domain"].values.tolist() == ["sleepy", "lively"]  # a folder is named without its path
    assert last.attrs["summary"].startswith("1 of 4 heads passes correction for dormancy: L1H0.")
    key = study.spec_key(toy, None)
    assert key == last.attrs["spec_key"]
    (tmp_path / "sleepy" / "00.txt").write_text(texts(SLEEPY, 1, 9)[0], encoding="utf-8")
    assert study.spec_key(toy, None) != key  # other texts are another question


def test_a_data_set_of_the_hub_is_asked_for_only_with_leave(toy, monkeypatch):
    asked, sleepy, lively = [], texts(SLEEPY, 12, 3), texts(LIVELY, 12, 3)

    def rows(name, split, start, length):
        asked.append(name)
        found = {"some/sleepy": [{"text": t} for t in sleepy], "some/lively": [{"body": t} for t in lively]}
        return [{"row": row} for row in found[name]]

    monkeypatch.setattr(corpora, "_hub_rows", rows)
    params = {**SMALL, "first": "hub:some/sleepy", "second": "hub:some/lively:body", "ablate": "none"}
    with pytest.raises(InputError, match=r"hub data set 'some/sleepy'.*--allow-network"):
        ActiveDormant(**params).run(toy)
    assert asked == []
    result = ActiveDormant(**params).run(toy, allow_network=True)
    assert asked == ["some/sleepy", "some/lively"] and result["candidate"].values[1, 0] == 1


# --- bad input ------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_the_reason(toy):
    enough, few = texts(SLEEPY, 12, 0), texts(LIVELY, 9, 0)
    with pytest.raises(RefusedError, match="9 texts of 24 tokens in few"):
        next(ActiveDormant(**SMALL).over(toy, {"enough": enough, "few": few}))
    with pytest.raises(RefusedError, match=r"0 texts .* \(12 were shorter\)"):
        next(ActiveDormant(**SMALL).over(toy, {"a": enough, "b": [Document("short", "abc")] * 12}))
    with pytest.raises(InputError, match="at least two"):
        next(ActiveDormant(**SMALL).over(toy, {"a": enough}))
    with pytest.raises(InputError, match="n_ctx"):
        next(ActiveDormant(length=N_CTX + 1).over(toy, {"a": enough, "b": enough}))
    with pytest.raises(RefusedError, match="no tokenizer"):
        next(ActiveDormant(**SMALL).over(tiny_model("llama"), {"a": enough, "b": enough}))
    with pytest.raises(InputError, match="ablate="):
        list(ActiveDormant(**{**SMALL, "ablate": "H6"}).over(toy, {"a": enough, "b": texts(LIVELY, 12, 0)}))
    with pytest.raises(InputError, match="twice"):
        ActiveDormant(first="code", second="code").run(toy)
    with pytest.raises(UnavailableError, match="no readable file at no/such/folder"):
        ActiveDormant(first="no/such/folder").run(toy)


def test_one_head_of_very_many_can_pass_correction():
    """With 10,000 permutations the only head of 1,024 that differs had q = 0.10."""
    values = np.random.default_rng(0).uniform(0, 0.2, (2, 24, 64, 16))
    values[0, :, 40, 3] += 0.7
    found = Difference.of(values, 0)
    assert np.argwhere(found.passes).tolist() == [[40, 3]]
