"""The model that the user holds: whatever we do with it, a plain call of it gives what it gave, and it stays usable."""

import copy
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from probes import AttributionPatching, CausalCheck, LogitLens
from tests.tiny_models import KINDS, spelling, tiny_hf
from workbench import Ablate, Head, Prompt, load, observe, wrap
from workbench.errors import InputError, RefusedError
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.hooks import PATTERN
from workbench.observation import Need

CLEAN = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7, 31])
# Of other lengths and batch sizes than the studies', of the same, and of one token.
PLAIN = [torch.tensor(ids) for ids in ([[3, 9, 4]], [[5] * 21, [8] * 21], [[0, 7, 31, 64, 12, 90, 45, 7, 31]], [[2]])]


def answers(model: nn.Module) -> list[torch.Tensor]:
    """Logits of plain calls."""
    with torch.no_grad():
        found = [model(ids) for ids in PLAIN]
    return [out if isinstance(out, torch.Tensor) else out.logits for out in found]


def laid_anew(model: nn.Module) -> nn.Module:
    """Weights where torch lays them, and no more where they lie in a file: some processors' kernels add in another
    order at addresses that are no multiples of 64 (5e-7 seen)."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def during(work: Callable[[], object], look: Callable[[], bool], times: int) -> Iterator[bool]:
    """What `look` says, again and again in this thread, while `work` is done again and again in another."""
    stop, errors = threading.Event(), []

    def again() -> None:
        try:
            while not stop.is_set():
                work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        for _ in range(times):
            assert thread.is_alive(), errors
            yield look()
    finally:
        stop.set()
        thread.join()
    assert not errors


@pytest.mark.parametrize("kind", KINDS)
def test_forty_plain_passes_during_a_study_equal_those_before(kind):
    hf = tiny_hf(kind, n_layers=3)
    before = answers(hf)
    model = wrap(hf, None)
    assert equal(answers(hf), before)
    check = lambda: CausalCheck(units="L1H2", metric="logit difference", target="#31").run(model, CLEAN)
    alone, seen = check(), []
    looked = list(during(lambda: seen.append(check()), lambda: equal(answers(hf), before), 40))
    assert looked == [True] * 40
    assert seen and all(result.identical(alone) for result in seen)


def test_gradients_and_attention_of_the_held_model_are_its_own():
    """In a thread that has gradients on, during passes that run without, and the other way round."""
    hf = tiny_hf("llama")
    ids = PLAIN[1]
    model = wrap(hf, spelling())
    loss = lambda: torch.autograd.grad(hf(ids, labels=ids).loss, hf.lm_head.weight)[0]
    before = loss()
    study = lambda: AttributionPatching(corrupt="ab db cb", target="#31", checked=4).run(model, "ab db ab")
    looked = list(during(study, lambda: torch.equal(loss(), before) and torch.is_grad_enabled(), 20))
    assert looked == [True] * 20 and hf.config._attn_implementation == "sdpa"


def test_generation_during_a_study():
    hf = tiny_hf("qwen2")
    write = lambda: hf.generate(PLAIN[0], max_new_tokens=12, do_sample=False)
    before, model = write(), wrap(hf, None)
    study = lambda: observe(model, CLEAN, interventions=[Ablate(Head(1, 1))])
    assert list(during(study, lambda: torch.equal(write(), before), 10)) == [True] * 10


def test_two_models_around_one_do_not_meet():
    hf = tiny_hf("gemma3")
    one, other = wrap(hf, None), wrap(hf, None)
    plain = observe(other, CLEAN).logits[0]
    edited = lambda: observe(one, CLEAN, interventions=[Ablate(Head(0, 1))])
    assert not torch.equal(edited().logits[0], plain)
    looked = during(edited, lambda: torch.equal(observe(other, CLEAN).logits[0], plain), 20)
    assert list(looked) == [True] * 20


def test_a_call_from_inside_a_pass_is_plain():
    """A progress callback or a reducer may well ask the model something else: no other thread, and no lock, helps."""
    hf = tiny_hf("neox")
    before, seen = answers(hf), []
    model = wrap(hf, None)
    note = lambda share: seen.append(equal(answers(hf), before))
    observe(model, CLEAN, interventions=[Ablate(Head(1, 0))], progress=note)
    assert seen == [True] * model.sizes.n_layers


def broken(pattern, site):
    raise ZeroDivisionError


def test_an_error_leaves_nothing_behind():
    hf = tiny_hf("gpt2")
    before = answers(hf)
    model = wrap(hf, None)
    ours = observe(model, CLEAN).logits[0]
    for error, asked in (
        (ZeroDivisionError, {"needs": [Need((PATTERN,), broken)]}),
        (InputError, {"start": (1, torch.zeros(1, 2, 32))}),
        (InputError, {"interventions": [Ablate(Head(0, 9))]}),
    ):
        with pytest.raises(error):
            observe(model, CLEAN, **{"interventions": [Ablate(Head(0, 1))], **asked})
        assert equal(answers(hf), before) and torch.equal(observe(model, CLEAN).logits[0], ours)
    assert not any(part._forward_hooks for part in hf.modules()) and torch.is_grad_enabled()


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapped_model_is_saved_copied_and_trained_as_before(kind, tmp_path):
    hf = tiny_hf(kind)
    hf.train()
    names, config = list(hf.state_dict()), hf.config.to_dict()
    modes = [part.training for part in hf.modules()]
    wrap(hf, None)
    assert list(hf.state_dict()) == names and hf.config.to_dict() == config
    assert [part.training for part in hf.modules()] == modes
    hf.eval()
    before = answers(hf)
    assert equal(answers(copy.deepcopy(hf)), before)
    hf.save_pretrained(tmp_path, safe_serialization=True)
    assert equal(answers(laid_anew(AutoModelForCausalLM.from_pretrained(tmp_path))), before)


def test_weights_are_shared_and_no_more_memory_is_taken():
    hf = tiny_hf("llama")
    model = wrap(hf, None)
    held = {parameter.data_ptr() for parameter in hf.parameters()}
    assert {parameter.data_ptr() for _, parameter in model.adapter.parameters()} == held
    before = observe(model, CLEAN).logits[0]
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight.mul_(2)  # a step of training, say
    after = observe(model, CLEAN).logits[0]
    assert not torch.equal(after, before)
    torch.testing.assert_close(after[0], answers(hf)[2][0, -1], atol=1e-5, rtol=1e-5)  # sdpa sums in another order


def test_the_users_own_hooks_stay_and_are_the_same_functions():
    hf, counted = tiny_hf("llama"), []
    handle = hf.model.layers[0].register_forward_hook(lambda *_: counted.append(1))
    model = wrap(hf, None)
    counted.clear()
    observe(model, CLEAN)
    assert counted == [1]  # it belonged to the model that was wrapped
    handle.remove()
    counted.clear()
    hf(PLAIN[0])
    assert counted == []


def test_hooks_are_followed_as_they_are_set_and_taken_off():
    """One that was taken off went on in our passes, and one set later came in with the next change of weights."""
    hf = tiny_hf("llama")
    block = hf.model.layers[0]
    steered = lambda by: block.mlp.register_forward_hook(lambda module, args, output: output + by)
    handle = steered(3.0)
    model = wrap(hf, None)
    ours = lambda: observe(model, CLEAN).logits[0][0]
    keys = []
    for hook in (None, 1.0, 2.0):  # the first one is there already
        handle = handle if hook is None else steered(hook)
        torch.testing.assert_close(ours(), answers(hf)[2][0, -1], atol=1e-5, rtol=1e-5)
        keys.append(model.identity.key)
        handle.remove()
        torch.testing.assert_close(ours(), answers(hf)[2][0, -1], atol=1e-5, rtol=1e-5)
        keys.append(model.identity.key)
    assert len(set(keys)) == 4 and len(set(keys[1::2])) == 1
    for by in (1.0, 2.0):  # no look in between: another one in the place of the last
        handle = steered(by)
        torch.testing.assert_close(ours(), answers(hf)[2][0, -1], atol=1e-5, rtol=1e-5)
        handle.remove()


def test_what_the_library_hooks_on_itself_is_no_change():
    """Asked for attentions once, it leaves functions on the modules that read only: the model is the same."""
    hf = tiny_hf("llama")
    model = wrap(hf, None)
    key, adapter = model.identity.key, model.adapter
    hf(PLAIN[0], output_attentions=True, output_hidden_states=True)
    assert model.identity.key == key == wrap(hf, None, name=model.name).identity.key and model.adapter is adapter


def test_a_toy_that_is_held_is_plain_too():
    torch.manual_seed(3)
    toy = ToyTransformer(ToyConfig(n_layers=2, d_mlp=32, d_vocab=96, norm="rms"))
    before = answers(toy)
    model = wrap(toy, None)
    assert toy.training
    check = lambda: CausalCheck(units="L1H2", metric="logit difference", target="#31").run(model, CLEAN)
    assert list(during(check, lambda: equal(answers(toy), before), 20)) == [True] * 20
    assert list(toy.state_dict()) == list(copy.deepcopy(toy).state_dict())


def test_a_loaded_model_is_plain_where_it_can_be_called(tiny_dir):
    model = load(str(tiny_dir), device="cpu")
    held = model.adapter.hf_model
    before = answers(held)
    lens = lambda: LogitLens().run(model.edited([Ablate(Head(0, 1))]), CLEAN)
    assert list(during(lens, lambda: equal(answers(held), before), 20)) == [True] * 20


def test_a_module_that_cannot_be_copied_is_refused_in_one_sentence():
    hf = tiny_hf("llama")
    hf.mine = threading.Lock()
    with pytest.raises(RefusedError, match="LlamaForCausalLM that cannot be copied"):
        wrap(hf, None)


@pytest.mark.parametrize("kind", KINDS)
def test_wrapping_draws_none_of_everybodys_random_numbers(kind):
    hf = tiny_hf(kind)
    torch.manual_seed(8)
    state = torch.random.get_rng_state()
    wrap(hf, None)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("kind", "rate"), [("gpt2", None), ("llama", 0.3), ("llama", 0.0)])
def test_training_mode_is_said_where_it_draws(kind, rate):
    hf = tiny_hf(kind).train()
    for layer in hf.model.layers if rate is not None else ():
        layer.self_attn.attention_dropout = rate
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = wrap(hf, None)
    said = [str(one.message) for one in told if "training mode" in str(one.message)]
    assert len(said) == (rate != 0.0) and hf.training
    again = [observe(model, Prompt.ids([3, 5, 7])).logits[0] for _ in range(2)]
    assert torch.equal(*again) and torch.equal(
        again[0], observe(wrap(hf.eval(), None), Prompt.ids([3, 5, 7])).logits[0]
    )
