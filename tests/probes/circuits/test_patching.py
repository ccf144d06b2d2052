"""Patching, its linear estimate, knockout and tracing: exact ends, planted circuits, independent routes."""

import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from probes.circuits import activation_patching, attention_knockout, attribution_patching, causal_tracing
from probes.circuits.activation_patching import SITES, ActivationPatching, effect_figure, patching, sites_of
from probes.circuits.attention_knockout import AttentionKnockout
from probes.circuits.attribution_patching import AttributionPatching, estimates, gradients
from probes.circuits.causal_tracing import CausalTracing
from probes.circuits.prompt_pairs import prompt_pair, segment, unused
from tests.tiny_models import KINDS, tiny_model
from workbench.errors import Cancelled, InputError
from workbench.intervene import FreezePatterns, Knockout, Patch, Steer
from workbench.loading.pretrained import load, wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.hooks import MLP_OUT, PATTERN, RESID_PRE, V, Z
from workbench.models.prompt import Prompt, tokenise
from workbench.models.target import Target
from workbench.observation import observe
from workbench.observation.metrics import Metric, make_metric
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run

CLEAN = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])
CORRUPT = Prompt.ids([5, 17, 40, 23, 60, 8, 77, 30, 12, 9])
METRIC = Metric("logit difference", Target.one(31), Target.one(7))


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    """Each tiny model."""
    return tiny_model(request.param)


def last(generator):
    *_, result = generator
    return result


def difference(model, prompt, *edits):
    logits = observe(model, prompt, interventions=edits).logits[0][0]
    return float(logits[31] - logits[7])


def test_every_site_against_one_pass_per_cell(model):
    """Independent route: plain observation with one intervention, no batch, no restart."""
    pair = prompt_pair(model, CLEAN, CORRUPT)
    assert pair.differing == (4,)
    for site in sites_of(model):
        result = last(patching(model, pair, site, metric=METRIC, pos=-1))
        assert float(result["corrupt"]) == pytest.approx(difference(model, CORRUPT), abs=1e-5)
        source, hook = record(model, CLEAN, [SITES[site]]), SITES[site]
        for layer, column in ((0, 1), (1, 0), (1, result["effect"].shape[1] - 1)):
            column, units = column % result["effect"].shape[1], hook in (Z, PATTERN, V)  # gemma3 has one v head
            edit = Patch(hook, layer, source, (-1,) if units else (column,), (column,) if units else None)
            expected = difference(model, CORRUPT, edit) - difference(model, CORRUPT)
            assert float(result["effect"][layer, column]) == pytest.approx(expected, abs=2e-5), (site, layer, column)


def test_the_differing_embedding_restores_everything_and_others_nothing(model):
    pair = prompt_pair(model, CLEAN, CORRUPT)
    first = last(patching(model, pair, "resid_pre", metric=METRIC))["recovered"].sel(layer=0)
    np.testing.assert_allclose(first, np.eye(10)[4], atol=1e-3)
    final = last(patching(model, pair, "resid_post", metric=METRIC))["recovered"][-1]
    np.testing.assert_allclose(final, np.eye(10)[9], atol=1e-3)


def test_patching_finds_the_planted_circuit():
    """Copy of 27 behind 9, or of 50: L0H0 marks what stood before, L1H0 moves it; no other head does anything."""
    toy = load("toy-induction")
    pair = prompt_pair(toy, Prompt.ids([3, 9, 27, 14, 3, 9]), Prompt.ids([3, 9, 50, 14, 3, 9]))
    heads = last(patching(toy, pair, "z"))
    assert float(heads["recovered"].sel(layer=1, head=0)) == pytest.approx(1.0, abs=1e-4)
    assert float(abs(heads["recovered"]).sum()) == pytest.approx(1.0, abs=1e-3)
    assert "Most is done at L1H0" in heads.attrs["summary"] and "100% of the difference" in heads.attrs["summary"]
    other = prompt_pair(toy, Prompt.ids([3, 9, 27, 14, 3, 9]), Prompt.ids([3, 8, 27, 14, 3, 9]))
    previous = last(patching(toy, other, "z"))
    assert float(previous["recovered"].sel(layer=0, head=0)) == pytest.approx(1.0, abs=1e-2)


def test_the_last_token_is_not_all_that_is_said(model):
    """Its late states bring back everything in any model: what does so before it is the finding."""
    found = last(patching(model, prompt_pair(model, CLEAN, CORRUPT), "resid_post", metric=METRIC))
    strings = [str(pos) for pos in range(found.sizes["pos"])]
    planted = xr.zeros_like(found)
    planted["effect"][1, -1], planted["effect"][0, 4], planted["effect"][1, 2] = 6.0, -2.0, 1.5
    said = activation_patching._summary(planted, strings)
    assert "Most is done at layer 1, token 9 9: +6.00" in said
    assert "Before the last token most is done at layer 0, token 4 4: -2.00" in said
    planted["effect"][:, :-1] = 0.0
    assert "Before the last token nothing that was patched changes anything." in activation_patching._summary(
        planted, strings
    )
    planted["effect"][0, 3] = 7.0
    assert "Before" not in activation_patching._summary(planted, strings)


def test_partial_results_and_cancelling(model):
    """Forty tokens make several batches: each adds cells and keeps the earlier ones; progress that raises ends it. Of
    the twenty positions in front of the differing one it is known without a pass that nothing changes."""
    ids = list(range(3, 43))
    pair = prompt_pair(model, Prompt.ids(ids), Prompt.ids([*ids[:20], 60, *ids[21:]]))
    shares: list[float] = []
    parts = list(patching(model, pair, "resid_pre", metric=METRIC, progress=shares.append))
    assert len(parts) == len(shares) > 2 and shares == sorted(set(shares)) and shares[-1] == 1.0
    known = [part["effect"].notnull().values for part in parts]
    assert [int(cells.sum()) for cells in known] == [40 + round(share * 40) for share in shares]
    assert not parts[0]["effect"][:, :20].any() and parts[-1]["effect"][:, 20].astype(bool).all()
    for part, cells in zip(parts, known, strict=True):
        np.testing.assert_array_equal(part["effect"].values[cells], parts[-1]["effect"].values[cells])

    plain, asked = observe(model, CLEAN).logits[0], []

    def stop(share):
        asked.append(share)
        raise Cancelled

    with pytest.raises(Cancelled):
        list(patching(model, pair, "resid_pre", metric=METRIC, progress=stop))
    assert asked == shares[:1] and torch.equal(observe(model, CLEAN).logits[0], plain)


def test_unequal_pairs_are_refused_with_their_tokens(model):
    with pytest.raises(InputError, match="equal lengths"):
        prompt_pair(model, CLEAN, Prompt.ids([5, 17]))
    with pytest.raises(InputError, match="equal to the clean"):
        prompt_pair(model, CLEAN, CLEAN)
    with pytest.raises(InputError, match="the site"):
        last(patching(model, prompt_pair(model, CLEAN, CORRUPT), "logits"))
    for ids, why in (([5] * 12, "no two different tokens"), ([3, 7, 8, 7, 8, 4], "repeats itself"), ([3], "no two")):
        with pytest.raises(InputError, match=why):  # which is no question of its length
            prompt_pair(model, Prompt.ids(ids))
    moved = prompt_pair(model, CLEAN)
    assert sorted(moved.corrupt.ids) == sorted(moved.clean.ids) and moved.corrupt.ids[-1] == 9


def test_attribution_patching_is_exact_on_a_linear_model():
    """No norms, no MLP, patterns frozen: the logits are linear in every value and state."""
    torch.manual_seed(0)
    toy = wrap(ToyTransformer(ToyConfig(n_layers=3, n_heads=4, d_model=32, d_head=8, d_vocab=96, n_ctx=16)), None)
    frozen = FreezePatterns(record(toy, CORRUPT, [PATTERN]))
    source = record(toy, CLEAN, [RESID_PRE, Z])
    found = estimates(toy, source, tokenise(toy, CORRUPT), METRIC, [RESID_PRE, Z], [frozen])
    plain = difference(toy, CORRUPT, frozen)
    for layer in range(3):
        for head in range(4):
            true = difference(toy, CORRUPT, frozen, Patch(Z, layer, source, None, (head,))) - plain
            assert float(found[Z][layer, :, head].sum()) == pytest.approx(true, abs=1e-5)
        for pos in (4, 9):
            true = difference(toy, CORRUPT, frozen, Patch(RESID_PRE, layer, source, (pos,))) - plain
            assert float(found[RESID_PRE][layer, pos]) == pytest.approx(true, abs=1e-5)


def test_gradients_are_derivatives_and_leave_no_trace(model):
    """Against a central difference along a direction, at two sites."""
    tokens, plain = tokenise(model, CLEAN), observe(model, CLEAN).logits[0]
    _, grads = gradients(model, tokens, METRIC, [RESID_PRE, MLP_OUT])
    direction = torch.linspace(-1, 1, model.sizes.d_model)
    for site in (RESID_PRE, MLP_OUT):
        up, down = (difference(model, CLEAN, Steer(1, direction, e, site, (6,))) for e in (1e-2, -1e-2))
        expected = (up - down) / 2e-2
        assert float(grads[site, 1][6] @ direction) == pytest.approx(expected, abs=2e-3, rel=2e-2)
    assert torch.equal(observe(model, CLEAN).logits[0], plain)
    assert all(parameter.grad is None for parameter in model.adapter.hf_model.parameters())


def test_the_estimate_reports_how_far_to_trust_it(model):
    result = AttributionPatching(target="#31", against="#7", checked=8).run(model, CLEAN)
    true, source = result["true_effect"].values, record(model, CLEAN, [Z])
    patched = np.argwhere(np.isfinite(true))
    corrupt = prompt_pair(model, CLEAN).corrupt
    by_hand = [difference(model, corrupt, Patch(Z, layer, source, None, (head,))) for layer, head in patched.tolist()]
    assert result.attrs["checked"] == len(patched) == 8
    np.testing.assert_allclose(true[tuple(patched.T)] + float(result["corrupt"]), by_hand, atol=1e-4)
    estimated = result["effect"].values[tuple(patched.T)]
    rho = scipy.stats.spearmanr(estimated, true[tuple(patched.T)]).statistic
    assert float(result["rank_correlation"]) == pytest.approx(rho)
    strongest = np.unravel_index(np.abs(result["effect"].values).argmax(), result["effect"].shape)
    assert f"Strongest by estimate: L{strongest[0]}H{strongest[1]} " in result.attrs["summary"]
    assert (
        f"Of 8 heads truly patched, the rank correlation with the estimate is {float(result['rank_correlation']):.2f}"
        in (result.attrs["summary"])
    )
    assert attribution_patching.heads_figure(result).data and attribution_patching.states_figure(result).data


@pytest.mark.parametrize(
    ("checked", "said"), [(0, None), (1, "Of 1 head truly patched, the effects"), (2, "Of 2 heads truly patched, the")]
)
def test_few_patched_heads_have_no_rank_correlation(model, checked, said):
    result = AttributionPatching(target="#31", against="#7", checked=checked).run(model, CLEAN)
    end = " effects have no rank correlation with the estimate: that needs three of unlike effects."
    assert "nan" not in result.attrs["summary"] and (" truly " in result.attrs["summary"]) == (said is not None)
    assert said is None or (said.removesuffix(" effects") + end) in result.attrs["summary"]
    assert "nan" not in attribution_patching.agreement_figure(result).layout.title.text


def test_what_changes_nothing_is_not_where_most_is_done(model):
    """The pattern of position 0, which sees itself alone in both runs."""
    pair = prompt_pair(model, Prompt.ids([4, 9, 7, 8, 2]), Prompt.ids([4, 9, 7, 8, 3]))
    *_, alike = patching(model, pair, "pattern", pos=0)
    assert float(abs(alike["effect"]).max()) < 1e-6
    assert alike.attrs["summary"].endswith("Nothing of it that was patched changes that.")


def test_knockout_profile_against_one_pass_per_layer(model):
    result = AttentionKnockout(subject="2,3", window=1, metric="logit difference", target="#31").run(model, CLEAN)
    plain = observe(model, CLEAN).logits[0][0, 31]
    for name, keys in (("first token", (0,)), ("subject", (2, 3)), ("rest", (1, 4, 5, 6, 7, 8))):
        for layer in range(2):
            cut = observe(model, CLEAN, interventions=[Knockout((-1,), keys, (layer,))]).logits[0][0, 31]
            found = float(result["effect"].sel(segment=name, layer=layer))
            assert found == pytest.approx(float(cut - plain), abs=1e-5)
    assert attention_knockout.profile_figure(result).data
    assert result.attrs["summary"].startswith("The logit of '#31' is ")


def test_knockout_finds_where_the_planted_circuit_reads():
    toy = load("toy-induction")
    result = AttentionKnockout(subject="2", window=1, metric="logit difference", target="#27").run(
        toy, Prompt.ids([3, 9, 27, 14, 3, 9])
    )
    assert float(result["effect"].sel(segment="subject", layer=1)) < -5  # L1H0 reads the token behind the earlier 9
    assert "around layer 1" in result.attrs["summary"]
    assert abs(float(result["effect"].sel(segment="subject", layer=0))) < 1e-3


def test_tracing_restores_the_subject_it_hid(model):
    result = CausalTracing(subject="3,4", draws=2, metric="logit difference", target="#31").run(model, CLEAN)
    assert result.sizes["draw"] == 2 and result.attrs["subject"] == "3 4"
    # behind the last block only the last position counts, and it restores everything
    np.testing.assert_allclose(result["recovered"][-1], np.eye(10)[9], atol=1e-3)
    assert np.isnan(result["effect_low"]).all()  # two draws give no interval
    assert causal_tracing.trace_figure(result).data and causal_tracing.profile_figure(result).data


def test_tracing_says_where_the_planted_circuit_keeps_the_token():
    """L1H0 moves 27 from position 2 to the last: up to layer 0 it is there, from layer 1 on it is at the end."""
    toy = load("toy-induction")
    study = CausalTracing(subject="2", draws=2, metric="logit difference", target="#27")
    result = study.run(toy, Prompt.ids([3, 9, 27, 14, 3, 9]))
    np.testing.assert_allclose(result["recovered"][0, 2], 1.0, atol=1e-3)
    np.testing.assert_allclose(result["recovered"][1, [2, 5]], [0.0, 1.0], atol=1e-3)
    said = causal_tracing._summary(  # of a loss that is large: this toy hardly minds noise
        result["recovered"].values, 10.0, np.zeros(2), "logits", (2,), "resid_post", ["a"] * 6
    )
    assert "at the subject's last token at layer 0, and at the last one at layer 1." in said
    behind = study.replaced(subject="5").run(toy, Prompt.ids([3, 9, 27, 14, 3, 9]))
    assert "Half" not in behind.attrs["summary"]  # the subject's last token is the last one


def test_tracing_against_one_pass_per_cell(model):
    tokens = tokenise(model, CLEAN)
    options = {"restore": "mlp_out", "window": 2, "noise": 3.0, "draws": 1, "seed": 0}
    result = last(causal_tracing.trace(model, tokens, METRIC, (3, 4), **options))
    size = 3.0 * float(base_run(model, CLEAN).states[0, 1:].std())
    noise = size * torch.randn(2, model.sizes.d_model, generator=torch.Generator().manual_seed(0))
    hidden, source = Steer(0, noise, 1.0, RESID_PRE, (3, 4)), record(model, CLEAN, [MLP_OUT])
    assert float(result["corrupt"]) == pytest.approx(difference(model, CLEAN, hidden), abs=1e-4)
    both = [Patch(MLP_OUT, layer, source, (4,)) for layer in (0, 1)]
    expected = difference(model, CLEAN, hidden, *both) - difference(model, CLEAN, hidden)
    assert float(result["effect"].sel(layer=1, pos=4)) == pytest.approx(expected, abs=1e-4)


def test_segments_are_found_by_text_or_position(default_model):
    tokens = tokenise(default_model, "The capital of France is")
    assert [tokens.strings[p] for p in segment(tokens, "France")] == [" France"]
    assert segment(tokens, "1,-1") == (1, len(tokens) - 1)
    with pytest.raises(InputError, match="part of the prompt"):
        segment(tokens, "Italy")


def test_a_segment_is_a_whole_word_where_there_is_one_and_no_position_is_another(default_model):
    """`Ann` was taken from `Annabel`, and 1984 and 99 were taken as positions of 15 tokens, counted round."""
    tokens = tokenise(default_model, "Ann met Annabel in 1984 and 3 cats")
    text = lambda asked: "".join(tokens.strings[p] for p in segment(tokens, asked))
    assert (text("Ann"), text("Annabel"), text("1984")) == ("Ann", " Annabel", "1984")
    assert text("nab") == " Annabel"  # a piece of a word that stands nowhere alone
    assert segment(tokens, "3") == (3,) and segment(tokens, "-15, 14") == (0, 14)
    for outside in ("15", "-16", "3,99", "\N{SUPERSCRIPT TWO}", "1,"):
        with pytest.raises(InputError, match="part of the prompt"):
            segment(tokens, outside)
    japanese = tokenise(default_model, "東京は日本の首都です")  # no spaces: every place is within a word
    assert segment(japanese, "日本") and segment(japanese, "日本") != segment(japanese, "東京")


@pytest.mark.parametrize("at", [10, -11, 99])
def test_a_position_outside_the_prompt_is_no_other_one(model, at):
    """It was counted round: 99 of 10 tokens was 9."""
    for study, prompt in ((AttentionKnockout(query=at), CLEAN), (ActivationPatching(site="z", pos=at), CLEAN)):
        with pytest.raises(InputError, match=f"Got position {at}; expected positions from 0 to 9"):
            study.run(model, prompt)
    with pytest.raises(InputError, match=f"Got position {at}"):
        make_metric(model, tokenise(model, CLEAN), torch.zeros(model.sizes.d_vocab), position=at)


def test_a_subject_that_the_query_cannot_see_is_refused(model):
    """Its segment was left out without a word."""
    with pytest.raises(InputError, match="token 3 sees no more than the first token"):
        AttentionKnockout(query=3, subject="7,8").run(model, CLEAN)


def test_tracing_names_what_got_noise_and_gives_no_share_of_nothing(model):
    """9750% came back of a loss of 0.00."""
    quiet = CausalTracing(subject="3,4", draws=4, noise=0.01).run(model, CLEAN).attrs["summary"]
    assert "with noise on tokens 3 to 4" in quiet and "nothing to bring back" in quiet and "%" not in quiet


@pytest.mark.parametrize(
    "window, at, layers", [(1, 2, [2]), (3, 2, [1, 2, 3]), (3, 0, [0, 1]), (2, 3, [2, 3]), (4, 5, [3, 4, 5])]
)
def test_tracing_restores_exactly_the_window(window, at, layers):
    model = tiny_model("llama", n_layers=6)
    cells = causal_tracing._cells(record(model, CLEAN, [MLP_OUT]), MLP_OUT, causal_tracing._spans(6, window), 10)
    assert len(cells) == 6 * 10
    assert [patch.layer for patch in cells[at * 10 + 7]] == layers
    assert {patch.positions for patch in cells[at * 10 + 7]} == {(7,)}


def test_values_that_query_heads_share_are_no_query_heads():
    """Of 4 heads with 2 of keys and values, L1H1 was said where the second pair's values had been patched."""
    for kind, dim in (("llama", "key_value_head"), ("gpt2", "head")):
        result = ActivationPatching(site="v", corrupt=" ".join(f"#{i}" for i in CORRUPT.token_ids)).run(
            tiny_model(kind), CLEAN
        )
        layer, place = np.unravel_index(np.abs(result["effect"].values).argmax(), result["effect"].shape)
        assert result["effect"].dims == ("layer", dim)
        shared = f"at key/value head {place} of layer {layer}:"
        assert (shared in result.attrs["summary"]) == (kind == "llama")
        assert (f"at L{layer}H{place}:" in result.attrs["summary"]) == (kind == "gpt2")
        hover = effect_figure(result).data[0].customdata if kind == "llama" else [["KV"]]
        assert "KV" in str(hover) or "KV" in str(effect_figure(result).data[0].hovertext)


@given(arrays(np.float64, (6, 4), elements=st.sampled_from([0.0, 0.4, 0.5, 1.0, -1.0])), st.integers(0, 3))
def test_tracing_names_all_layers_that_bring_half_back_and_no_other(recovered, at):
    """Profiles need not be monotone: 'up to layer 4' was said where layers 2 and 4 did, and 3 did not."""
    said = causal_tracing._summary(recovered, 2.0, np.ones(2), "nats", (at,), "mlp_out", ["", " a", "b", "c"])
    most = re.search(r"most comes back with mlp_out of layer (\d) at token (\d) (\S+): (\d+)%", said)
    assert bool(most) == bool((recovered[:, :3] > 0).any())
    if most:
        layer, pos = int(most[1]), int(most[2])
        assert recovered[layer, pos] == recovered[:, :3].max() == int(most[4]) / 100
        assert most[3] == ["∅", "·a", "b"][pos]
    places = [set(np.flatnonzero(recovered[:, pos] >= 0.5)) for pos in (at, 3)]
    if at == 3 or not all(places):
        assert "Half" not in said
        return
    for words, expected in zip(said.split("Half or more")[1].split(", and at the last one at "), places, strict=True):
        named = set()
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", words):
            named |= set(range(int(first), int(last or first) + 1))
        assert named == expected


@pytest.mark.parametrize("study", [ActivationPatching(site="z"), AttributionPatching()])
def test_a_corrupt_prompt_that_nobody_gave_is_named(study):
    """In the sentence, and of truly patched sites in the title: its numbers are of no contrast that somebody chose."""
    toy = load("toy-induction")
    clean, given = Prompt.ids([14, 3, 9, 27, 50, 14, 3]), replace(study, corrupt="14 5 9 27 50 14 5")
    moved, chosen = study.run(toy, clean), given.run(toy, clean)
    said = "The corrupt prompt is this one with its tokens moved: none was given."
    assert said in moved.attrs["summary"] and said not in chosen.attrs["summary"]
    if study.name == "activation-patching":
        titles = [effect_figure(result).layout.title.text.replace("<br>", " ") for result in (moved, chosen)]
        assert ["moved tokens" in title for title in titles] == [True, False]


def test_what_is_given_beside_a_task_is_named():
    """A target beside a task with answers of its own was passed over, and the numbers read as of that target."""
    assert unused("mine.csv", "", "") == ""
    said = unused("mine.csv", "The other", " Paris", "")
    assert said == "'The other' and ' Paris' were not used: the task 'mine.csv' has its own."
