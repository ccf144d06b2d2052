"""Change it and see: a planted head stops copying, a control does not; laws at the ends of every strength."""

import numpy as np
import pytest
import torch

from probes.checks.change import VIEW, ChangeAndSee
from probes.checks.norms import output_norms
from tests.tiny_models import tiny_hf, tiny_model
from workbench import Ablate, Head, Neurons, Prompt, Scale, load, observe, wrap
from workbench.errors import InputError
from workbench.intervene import MLP, AttentionKey, Residual
from workbench.models.hooks import Z
from workbench.observation import Need, keep

IDS = Prompt.ids([5, 9, 17, 33, 2, 9, 17])
REPEATED = Prompt.ids([14, 3, 9, 27, 50, 14, 3, 9])


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def last(result):
    return {str(run): result["new_token"].sel(condition=run).values.tolist() for run in result["condition"].values}


def test_without_the_planted_head_the_text_stops_being_copied():
    """L1H0 of the toy copies: intact goes on 27, 50, 14; without it the text is another from the first new token on."""
    toy = load("toy-induction")
    result = ChangeAndSee(units="L1H0", n=3).run(toy, REPEATED)
    texts = last(result)
    assert texts["intact"] == [27, 50, 14] and texts["changed"][0] != 27
    assert (
        result["differs"].sel(condition="changed").values[0] == 1
        and not result["differs"].sel(condition="intact").any()
    )
    assert float(result["kl"].sel(condition="changed")) > 1 > float(result["kl"].sel(condition="intact")) == 0
    assert result.attrs["summary"].startswith("Without L1H0 the text parts from the intact one at new token 1: ")
    assert result.attrs["edit"] == "Ablate(L1H0 by zero)"
    for figure in VIEW.figures:
        assert figure(result).data
    cells, dots = VIEW.figures[0](result).data
    assert [row[0] for row in cells.text] == ["#27", "#50", "#14"]  # downwards, where a phone has room for words
    assert np.allclose(np.asarray(dots.x) % 1, 0.58)  # a dot at the left edge of its cell covers no word
    table = VIEW.tables[0](result)
    assert table["differs"].tolist()[0] and list(table.columns) == ["intact", "changed", "control", "differs"]


def test_a_prompt_that_fills_the_context_leaves_nothing_to_write(llama):
    full = Prompt.ids([5] * llama.sizes.n_ctx)
    with pytest.raises(InputError, match="a prompt of 128 tokens; expected at most 127 for tiny-llama"):
        ChangeAndSee(units="L0H1", n=3).run(llama, full)
    result = ChangeAndSee(units="L0H1", n=3).run(llama, Prompt.ids([5] * (llama.sizes.n_ctx - 1)))
    assert result.sizes["step"] == 1


def test_every_run_is_the_greedy_text_of_a_model_so_edited(llama):
    """Against one unbatched pass a token, each run by itself; the control is the head nearest in norm."""
    result = ChangeAndSee(units="L1H2", how="scale", by=-3.0, n=4).run(llama, IDS)
    norms = output_norms(llama, [IDS], Head)
    away = np.abs(norms - norms[1, 2])
    away[1, 2] = np.inf
    nearest = Head(*map(int, np.unravel_index(away.argmin(), away.shape)))
    assert result.attrs["beside"] == str(nearest) and away.min() <= np.log(1.5)
    for run, edits in (("intact", []), ("changed", [Scale(Head(1, 2), -3.0)]), ("control", [Scale(nearest, -3.0)])):
        ids = [5, 9, 17, 33, 2, 9, 17]
        for _ in range(4):
            ids.append(int(observe(llama, Prompt.ids(ids), interventions=edits).logits[0][-1].argmax()))
        assert last(result)[run] == ids[7:]


@pytest.mark.parametrize(
    "given",
    [
        {"how": "scale", "by": 1.0, "units": "L0 mlp"},
        {"how": "steer", "by": 0.0, "toward": "#7", "units": "L1 mlp"},
        {"how": "swap", "giver": "", "units": "L1H0"},
    ],
)
def test_what_changes_nothing_leaves_the_text_as_it_is(llama, given, monkeypatch):
    """Factor 1, strength 0, and a giver that is the prompt itself."""
    if given["how"] == "swap":
        monkeypatch.setattr("probes.checks.change.typed", lambda model, prompt: observe(llama, IDS).tokens[0])
        given = given | {"giver": "the prompt itself"}
    result = ChangeAndSee(n=3, **given).run(llama, IDS)
    texts = last(result)
    assert texts["changed"] == texts["intact"] and "goes on as it was for 3 tokens" in result.attrs["summary"]
    # Rows of one batch, with the same edit of nothing: rounding of a product by 1 or a sum with 0 is none.
    assert float(result["kl"].sel(condition="changed")) < 1e-6


def test_a_swap_gives_the_last_tokens_of_a_prompt_of_another_length(llama, monkeypatch):
    giver = observe(llama, Prompt.ids([5, 40, 41]), [need := Need((Z,), keep, dims="pos head d_head")])
    monkeypatch.setattr("probes.checks.change.typed", lambda model, prompt: giver.tokens[0])
    study = ChangeAndSee(units="L0H1", how="swap", giver="another one", n=2)
    result = study.run(llama, IDS)
    assert "the giver; the shown prompt takes" in result.attrs["summary"]
    given = study._giver(llama, [Head(0, 1)], 7)
    assert given.positions == (5, 6)
    seen = observe(
        llama, Prompt.ids([5, 9, 17, 33, 2, 9, 17, 8, 8]), [need], interventions=[study._edit(Head(0, 1), given)]
    )
    torch.testing.assert_close(seen[need][0, 0, 5:7, 1], giver[need][0, 0, 1:, 1])  # its last two, in the longer text
    plain = observe(llama, Prompt.ids([5, 9, 17, 33, 2, 9, 17, 8, 8]), [need])
    assert torch.equal(seen[need][0, 0, 7:], plain[need][0, 0, 7:]) and torch.equal(
        seen[need][0, 0, :5], plain[need][0, 0, :5]
    )


STATE = {"units": "L1 pos 5", "how": "swap", "giver": "#5 #40 #41 #2 #9 #77 #31 #60"}


def test_a_state_of_another_prompt_is_what_plain_hooks_write():
    """In plain Hugging Face: the giver's hidden state in front of layer 1 at its token 3, written at token 5; the
    control is written there, too: the token whose state is as far from the one that is replaced, nearest of all."""
    module = tiny_hf("llama")
    model = wrap(module, None, name="tiny")
    result = ChangeAndSee(**STATE, origin=3, n=3).run(model, IDS)
    ids, giver = [5, 9, 17, 33, 2, 9, 17], [5, 40, 41, 2, 9, 77, 31, 60]
    with torch.no_grad():
        given, here = (module(torch.tensor([x]), output_hidden_states=True).hidden_states[1][0] for x in (giver, ids))
    far = (given - here[5]).norm(dim=-1).log()
    away = (far - far[3]).abs()
    away[[0, 3]] = torch.inf
    nearest = int(away.argmin())
    assert away[nearest] < np.log(1.5), "choose a giver that has a control"
    assert result.attrs["beside"].startswith(f"the giver's token {nearest} ")

    def written(origin):
        def swapped(_, given_args, given_kwargs):
            states = given_args[0].clone()
            states[:, 5] = given[origin]
            return (states, *given_args[1:]), given_kwargs

        handle, text = module.model.layers[1].register_forward_pre_hook(swapped, with_kwargs=True), list(ids)
        try:
            with torch.no_grad():
                for _ in range(3):
                    text.append(int(module(torch.tensor([text])).logits[0, -1].argmax()))
        finally:
            handle.remove()
        return text[7:]

    texts = last(result)
    assert texts["changed"] == written(3) and texts["control"] == written(nearest)
    assert "With L1 pos 5 as at token 3 " in result.attrs["summary"] and "(the giver)" in result.attrs["summary"]
    # As far from the end where no token is named: token 6 of 8 for token 5 of 7.
    assert "as at token 6 " in ChangeAndSee(**STATE, n=1).run(model, IDS).attrs["how"]


def test_a_state_swapped_for_itself_changes_nothing_and_has_no_like(llama):
    same = STATE | {"giver": "#5 #9 #17 #33 #2 #9 #17", "origin": 5}
    result = ChangeAndSee(**same, n=3).run(llama, IDS)
    assert last(result)["changed"] == last(result)["intact"] and float(result["kl"].sel(condition="changed")) < 1e-6
    assert "No other state of the giver is as far" in result.attrs["summary"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"units": "L0H0 L1 mlp"}, "of one kind"),
        ({"units": "L0H0 key 0"}, "of one kind"),
        ({"units": "L9H0"}, "L9H0"),
        ({"how": "swap"}, "without a giver"),
        (STATE | {"how": "remove"}, "for swap one state"),
        (STATE | {"units": "L1 pos 5, L1 pos 4"}, "for swap one state"),
        (STATE | {"units": "L1 pos 7"}, "a token from 0 to 6"),
        (STATE | {"origin": 8}, "token 8 of the giver"),
        (STATE | {"giver": "#5", "units": "L1 pos 4"}, "token -2 of the giver"),
        ({"how": "steer"}, "without a token"),
        ({"how": "steer", "toward": "#7", "units": "L0H0 L1H0"}, "of one layer"),
    ],
)
def test_what_cannot_be_changed_says_why(llama, given, words):
    with pytest.raises(InputError, match=words):
        ChangeAndSee(**given).run(llama, IDS)


# --- Scale ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, 1.0, -2.5])
def test_scaling_a_head_is_the_same_by_plain_hooks(factor):
    """In plain Hugging Face: a pre-hook of o_proj that multiplies the head's part of its input."""
    module = tiny_hf("llama")
    model, ids = wrap(module, None, name="tiny"), [5, 9, 17, 33, 2]
    found = observe(model, Prompt.ids(ids), positions="all", interventions=[Scale(Head(1, 2), factor)]).logits[0]
    width = model.sizes.d_head
    projection = module.model.layers[1].self_attn.o_proj

    def scaled(_, given):
        changed = given[0].clone()
        changed[..., 2 * width : 3 * width] *= factor
        return (changed,)

    handle = projection.register_forward_pre_hook(scaled)
    try:
        with torch.no_grad():
            plain = module(torch.tensor([ids])).logits[0]
    finally:
        handle.remove()
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)  # sums of another order in float32
    if factor == 0:
        zero = observe(model, Prompt.ids(ids), positions="all", interventions=[Ablate(Head(1, 2))]).logits[0]
        assert torch.equal(found, zero)


def test_scaling_reaches_rows_and_positions_alone_and_refuses_attention(llama):
    need = Need((Z,), keep, dims="pos head d_head")
    edit = Scale(Head(0, 1), 3.0, positions=(2,), rows=(1,))
    plain = observe(llama, [IDS, IDS], [need])[need]
    seen = observe(llama, [IDS, IDS], [need], interventions=[edit])[need]
    torch.testing.assert_close(seen[0, 1, 2, 1], 3 * plain[0, 1, 2, 1])
    seen[0, 1, 2, 1] = plain[0, 1, 2, 1]
    assert torch.equal(seen[0], plain[0])
    assert str(edit) == "Scale(L0H1 by 3 at positions 2 in rows 1)"
    for unit in (AttentionKey(0, 1, 0),):
        with pytest.raises(InputError, match="Ablate it instead"):
            observe(llama, IDS, interventions=[Scale(unit, 2.0)])
    for unit in (MLP(0), Neurons(1, (3,)), Residual(1, 2)):
        assert observe(llama, IDS, interventions=[Scale(unit, 2.0)]).logits[0].isfinite().all()
    with pytest.raises(InputError):
        observe(llama, IDS, interventions=[Scale(MLP(0), float("nan"))])
