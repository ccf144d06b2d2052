"""Readout probes: planted readouts are found, nothing is found where nothing is, and files are what they say."""

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

from probes import TokenErasureAccuracy
from probes.erasure.trained import artifact, trainer
from probes.erasure.trained import fit as fitting
from probes.erasure.trained import published as published_module
from probes.erasure.trained.artifact import default_path, find, load_probes, packed, save_probes, unpacked
from probes.erasure.trained.command import add_arguments, add_import_arguments, asked, cli, import_cli
from probes.erasure.trained.control import random_twin
from probes.erasure.trained.fit import (
    bfloat16_wins,
    closed_form,
    fast_dtype,
    fit,
    fit_linear,
    gradients,
    linear_gradient,
    log_probs,
    whitening,
)
from probes.erasure.trained.published import import_probes
from probes.erasure.trained.recipe import Recipe
from probes.erasure.trained.states import collect, cut, needs_of
from probes.erasure.trained.trainer import recommended_depths, train, work_name
from probes.erasure.trained.words import Word, letter_runs, multi_token_words, place_masks
from tests.another_user import as_another_user
from tests.tiny_models import tiny_hf, tiny_model
from tests.tiny_probes import QUICK, published, random_pieces, sentences, speller, tiny_probes
from workbench.errors import Cancelled, FileError, InputError, RefusedError, UnavailableError
from workbench.loading.pretrained import wrap
from workbench.models.hooks import RESID_POST
from workbench.models.prompt import Prompt
from workbench.models.spans import Spans
from workbench.observation import Need, keep, observe
from workbench.processor import Processor


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", n_layers=3)


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("probes") / "erasure.safetensors"
    return tiny_probes(model, path, depths=(1, 3)), path


# planted


def planted(noise: float, shuffled: bool = False):
    """States that are a rotation of their token's embedding plus noise: classes, white rows, x and y."""
    torch.manual_seed(0)
    rows = torch.randn(60, 16) @ torch.randn(16, 16)
    centre, K = whitening(rows)
    y = torch.randint(60, (6000,))
    x = rows[y] @ torch.linalg.qr(torch.randn(16, 16))[0] / 5 + noise * torch.randn(6000, 16)
    x = (x - x.mean(0)) / x.std(0)
    return rows, (rows - centre) @ K, K, x, y[torch.randperm(6000)] if shuffled else y


def trained(white, x, y, epochs=4):
    start = closed_form(x[:5000], y[:5000], white, x[5000:], y[5000:])
    return start, fit(x[:5000], y[:5000], white, start, Recipe(epochs=epochs, lr=3e-3, batch=256, dtype="float32"))


def accuracy(W, b, white, x, y) -> float:
    return float(log_probs(x[5000:], W, b, white, y[5000:])[1].float().mean())


def test_a_planted_readout_is_found_and_training_improves_on_the_start():
    _, white, _, x, y = planted(noise=0.6)
    start, end = trained(white, x, y)
    before, after = (log_probs(x[5000:], *probe, white, y[5000:])[0].mean() for probe in (start, end))
    assert accuracy(*end, white, x, y) > 0.5 and after > before - 0.01
    clean = planted(noise=0.05)
    assert accuracy(*trained(*clean[1:2], *clean[3:])[0], clean[1], *clean[3:]) > 0.95  # the closed form alone


def test_shuffled_targets_give_chance():
    """60 equally frequent classes: 1/60 of 1,000 is 17 +- 4; five standard deviations."""
    _, white, _, x, y = planted(noise=0.05, shuffled=True)
    assert accuracy(*trained(white, x, y)[1], white, x, y) < (17 + 5 * 4.1) / 1000


def test_the_plain_probe_finds_the_same_planted_readout_and_chance_where_nothing_is():
    recipe = Recipe(epochs=8, lr=3e-2, batch=256, dtype="float32", kind="linear")
    shares = {}
    for shuffled in (False, True):
        _, _, _, x, y = planted(noise=0.05, shuffled=shuffled)
        W = fit_linear(x[:5000], y[:5000], 60, recipe)
        shares[shuffled] = float(log_probs(x[5000:], W, torch.zeros(60), None, y[5000:])[1].float().mean())
    assert shares[False] > 0.95 and shares[True] < (17 + 5 * 4.1) / 1000


# laws and slow routes


def test_the_written_gradient_of_the_plain_probe_is_the_gradient():
    _, _, _, x, y = planted(noise=0.5)
    x, y, W = x[:700], y[:700], torch.randn(16, 60, requires_grad=True)  # more than are held together
    torch.nn.functional.cross_entropy(x @ W, y).backward()
    torch.testing.assert_close(linear_gradient(x, y, W.detach()), W.grad, atol=1e-6, rtol=1e-4)


def test_the_written_gradient_is_the_gradient():
    _, white, _, x, y = planted(noise=0.5)
    x, y = x[:64], y[:64]
    W, b = torch.randn(16, 16, requires_grad=True), torch.randn(60, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x @ W @ white.T + b, y)
    loss.backward()
    grad_W, grad_b = gradients(x, y, W.detach(), b.detach(), white)
    torch.testing.assert_close(grad_W, W.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(grad_b, b.grad, atol=1e-6, rtol=1e-4)
    half, _ = gradients(x, y, W.detach(), b.detach(), white.bfloat16())
    assert (half - W.grad).norm() / W.grad.norm() < 0.05  # bfloat16 has 8 bits


def test_whitening_makes_rows_white_and_is_undone_in_the_map():
    rows, white, K, x, y = planted(noise=0.5)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(K, K.T, atol=1e-5, rtol=1e-4)
    W, b = torch.randn(16, 16), torch.randn(60)
    in_white, in_rows = log_probs(x, W, b, white, y)[0], log_probs(x, W @ K, b, rows, y)[0]
    torch.testing.assert_close(in_white, in_rows, atol=2e-4, rtol=1e-4)  # the centre moves all logits alike


def test_log_probs_are_log_softmax_and_nan_without_a_target():
    rows, _, _, x, y = planted(noise=0.5)
    W, b = torch.randn(16, 16), torch.randn(60)
    y = y.clone()
    y[3] = -1
    own, hit, best = log_probs(x, W, b, rows, y)
    full = (x @ W @ rows.T + b).log_softmax(-1)
    torch.testing.assert_close(own[4:], full[4:].gather(1, y[4:, None])[:, 0], atol=1e-4, rtol=1e-4)
    assert torch.isnan(own[3]) and not hit[3]
    assert torch.equal(best, full.argmax(1)) and torch.equal(hit, best == y)


def test_the_number_format_is_what_the_processor_has_instructions_for(monkeypatch):
    monkeypatch.setattr(fitting, "_seconds", lambda *_: pytest.fail("measured although it is known"))
    old, new, silent = (Processor("AVX2", bfloat16=has, float16=False) for has in (False, True, None))
    assert fast_dtype(old) == torch.float32 and fast_dtype(new) == torch.bfloat16
    for wins, chosen in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(fitting, "_bfloat16_wins", lambda wins=wins: wins)
        assert fast_dtype(silent) == chosen  # a torch that does not tell: then it is measured


class Products(TorchFunctionMode):
    """The number formats of all products of two matrices inside."""

    def __init__(self):
        super().__init__()
        self.formats = []

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.nn.functional.linear):
            self.formats.append(arguments[0].dtype)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("has", [False, True])
def test_without_instructions_for_bfloat16_no_product_is_made_in_it(monkeypatch, has):
    monkeypatch.setattr(fitting, "this_processor", lambda: Processor("AVX2", bfloat16=has, float16=has))
    _, white, _, x, y = planted(noise=0.5)
    x, y, start = x[:64], y[:64], (torch.zeros(16, 16), torch.zeros(60))
    with Products() as seen:
        fit(x, y, white, start, Recipe(epochs=2, batch=32))
        fit_linear(x, y, 60, Recipe(epochs=2, batch=32, kind="linear"))
    assert len(seen.formats) >= 2 * 4 * 2 and (torch.bfloat16 in seen.formats) == has


def test_measuring_stops_at_the_first_slow_answer():
    """On a clock of our own: (seconds of bfloat16, of float32) by the size of the product."""

    def measured(small, large):
        asked = []

        def seconds(dtype, shape):
            asked.append(shape)
            return (small if shape[2] == 256 else large)[dtype == torch.float32]

        return bfloat16_wins(seconds), {shape[2] for shape in asked}

    assert measured((60.0, 1.0), (100.0, 1.0)) == (False, {256})  # a plain loop never meets the large product
    assert measured((1.5, 1.0), (0.5, 1.0)) == (True, {256, 4096})
    assert measured((1.5, 1.0), (0.9, 1.0)) == (False, {256, 4096})
    assert fitting._seconds(torch.bfloat16, (2, 3, 4)) > 0


def test_collected_states_are_those_of_a_plain_pass(model):
    pieces = cut(model, [(0, [0, 5, 9, 12, 40]), (1, [0, 7, 7])])
    states = collect(model, pieces, (0, 2))
    kept = observe(model, [Prompt.ids([0, 7, 7])], [Need((RESID_POST,), keep, dims="pos d_model", layers=(1,))])
    state = next(iter(kept.results.values()))[0, 0]
    expected = state / state.pow(2).mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(states[2][5:].float(), expected, atol=2e-3, rtol=2e-3)  # float16
    at, named = pieces.targets(-1)  # no tokenizer, so no BOS: the text begins at position 0
    assert at.tolist() == [1, 2, 3, 4, 6, 7] and named.tolist() == [0, 5, 9, 12, 0, 7]
    assert set(needs_of((0, 2))) == {0, 2}


# files


def test_a_probe_that_was_read_back_gives_identical_probabilities(model, made):
    probes, path = made
    again = load_probes(path, model.identity.key)
    assert again.digest == probes.digest and again.card == probes.card
    states, rows = torch.randn(20, 32), model.readout.W_U[probes.classes].float()
    for key in probes.maps:
        y = torch.arange(20)
        assert torch.equal(probes.score(*key, states, rows, y)[0], again.score(*key, states, rows, y)[0])
        assert torch.equal(probes.hits[key], again.hits[key])


def test_the_card_says_what_it_was_made_of(model, made):
    probes, path = made
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert card == probes.card and card["model"]["key"] == model.identity.key
    assert card["split"]["train"]["tokens"] == 50 * 48 and card["split"]["test"]["documents"] == 4
    assert [(row["depth"], row["offset"]) for row in card["probes"]] == [(d, o) for d in (1, 3) for o in (0, -1, -2)]
    for row in card["probes"]:
        hits = probes.hits[row["depth"], row["offset"]]
        assert row["test_accuracy"] == pytest.approx(float(hits.float().mean()), abs=1e-4)
        assert row["test_low"] is row["test_high"] is None  # four documents give no interval


def test_probes_of_other_weights_are_refused(made):
    with pytest.raises(RefusedError, match="weights"):
        load_probes(made[1], tiny_model("llama", n_layers=3, seed=1).identity.key)


def test_probes_of_the_same_weights_with_other_settings_are_not_found_and_refused(model, made, monkeypatch, tmp_path):
    """Their states differ: with half the base of rotations every probe would read another model's."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    hf = tiny_hf("llama", n_layers=3)
    hf.model.rotary_emb.inv_freq.mul_(0.5)
    other = wrap(hf, None, name="tiny-slow")
    assert other.identity.weights_hash == model.identity.weights_hash
    save_probes(made[0], default_path(model.identity.key))
    assert find(model.identity.key) is not None and find(other.identity.key) is None
    assert train_key(model) != train_key(other)
    with pytest.raises(RefusedError, match="settings"):
        import_probes(other, made[1])


def train_key(model):
    return work_name(model, {"digest": "a"}, QUICK)


def test_an_older_file_that_names_its_weights_alone_is_refused(model, made, tmp_path):
    card = made[0].card | {"model": {k: v for k, v in made[0].card["model"].items() if k != "key"}}
    (tmp_path / "old.safetensors").write_bytes(packed(made[0].tensors(), card))
    with pytest.raises(RefusedError, match="settings that are not named"):
        load_probes(tmp_path / "old.safetensors", model.identity.key)


def test_damaged_files_are_named(model, made, tmp_path):
    data, weights = made[1].read_bytes(), model.identity.key
    for name, bad in {
        "cut": data[:-1000],
        "head": data[:20],
        "bit": data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    }.items():
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(UnavailableError, match=r"damaged|not as it was written"):
            load_probes(tmp_path / name, weights)
    with pytest.raises(UnavailableError, match="no file"):
        load_probes(tmp_path / "missing", weights)


@pytest.mark.parametrize("where", ["card", "map"])
def test_one_changed_character_of_what_is_kept_is_noticed(model, made, tmp_path, where):
    """Also of the card, whose numbers stand beside every claim."""
    path = tmp_path / "a.safetensors"
    content = bytearray(packed({"map": torch.ones(4)}, {"probes": [{"test_accuracy": 0.5}]}))
    path.write_bytes(content)
    assert unpacked(path)[1] == {"probes": [{"test_accuracy": 0.5}]}
    at = content.index(b"0.5") + 2 if where == "card" else len(content) - 3
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="not as it was written"):
        unpacked(path)


def test_a_card_of_another_kind_is_refused_whatever_seal_it_has(model, made, tmp_path):
    """Who writes numbers and card can write a checksum of them too: both are held against each other."""
    tensors, card = unpacked(made[1])
    (name,) = [one for one in tensors if one.startswith("map.1.")][:1]
    changes = {
        "no model": {"model": "llama"}, "rows": {"probes": [{"depth": "1", "offset": 0}]}, "no rows": {"probes": []},
        "recipe": {"recipe": {"kind": "linear"}}, "corpus": {"corpus": None}, "split": {"split": [1, 2]},
        "accuracy": {"accuracy": {"rows": [[1]]}},
    }  # fmt: skip
    odd = {what: (tensors, {**card, **change}) for what, change in changes.items()}
    odd |= {
        "shape": ({**tensors, name: tensors[name][:-1]}, card),
        "name": ({**tensors, "map.one": tensors[name].clone()}, card),
        "NaN": ({**tensors, name: torch.full_like(tensors[name], torch.nan)}, card),
        "classes": ({**tensors, "counts": tensors["counts"][1:]}, card),
    }  # fmt: skip
    for what, (numbers, said) in odd.items():
        path = tmp_path / f"{what}.safetensors"
        path.write_bytes(packed(numbers, {**said, "digest": artifact._digest(numbers)}))
        with pytest.raises(FileError, match=r"with (ValueError|KeyError)"):
            load_probes(path, model.identity.key)


def test_what_is_written_over_the_file_is_not_in_probes_that_are_held(model, made, tmp_path):
    """They were pages of the file: verified when they were read, and other numbers later."""
    path = tmp_path / "probes.safetensors"
    path.write_bytes(made[1].read_bytes())
    held = load_probes(path, model.identity.key)
    before = {key: weight.clone() for key, (weight, _) in held.maps.items()}
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * (path.stat().st_size // 2))
    assert all(torch.equal(held.maps[key][0], before[key]) for key in before)


def test_a_pipe_is_no_file_of_probes(model, tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(FileError, match="no file at"):
        import_probes(model, tmp_path / "pipe.safetensors")
    with pytest.raises(FileError, match="no file at"):
        load_probes(tmp_path / "pipe.safetensors", model.identity.key)


def test_the_cache_is_looked_up_by_weights(model, made, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert find(model.identity.key) is None
    save_probes(made[0], default_path(model.identity.key))
    found = find(model.identity.key)
    assert found.digest == made[0].digest and found is find(model.identity.key)


def test_a_token_that_the_corpus_never_held_is_a_class_of_its_own(model, tmp_path):
    parts = {
        name: cut(model, [(i, [t for t in piece.ids if t != 95]) for i, piece in enumerate(part.tokens)])
        for name, part in random_pieces(model).items()
    }
    probes = train(model, parts, depths=(1,), offsets=(0,), recipe=QUICK, path=tmp_path / "p.safetensors")
    classes, index = probes.classes_with(np.array([95, 4]))
    assert 95 not in probes.classes and len(classes) == len(probes.classes) + 1 and index[95] == len(probes.classes)
    rows, states = model.readout.W_U[classes].float(), torch.randn(3, 32)
    total = sum(probes.score(1, 0, states, rows, torch.full((3,), i))[0].exp() for i in range(len(classes)))
    torch.testing.assert_close(total, torch.ones(3), atol=1e-4, rtol=0)


def test_plain_probes_are_a_file_of_their_own_and_cannot_name_what_they_never_saw(model, made, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    weights = model.identity.key
    pieces = random_pieces(model)
    known = {
        name: cut(model, [(i, [t for t in p.ids if t != 95]) for i, p in enumerate(part.tokens)])
        for name, part in pieces.items()
    }
    probes = train(model, known, depths=(1,), offsets=(0,), recipe=Recipe.of("linear", epochs=2, dtype="float32"))
    assert find(weights) is None and find(weights, kind="linear").digest == probes.digest
    assert probes.kind == "linear" and "plain softmax" in probes.card["kind"] and not probes.maps[1, 0][1].any()
    assert probes.maps[1, 0][0].shape == (32, len(probes.classes))
    classes, index = probes.classes_with(np.array([95]))
    own, hit, _ = probes.score(1, 0, torch.randn(3, 32), model.readout.W_U[classes], torch.full((3,), index[95]))
    assert (own.exp() == 0).all() and not hit.any()
    assert probes.numbers[1, 0]["test_accuracy"] > 5 / 95  # at offset 0 the state says much of its token
    with pytest.raises(InputError, match="quadratic"):
        Recipe.of("quadratic")


# published probes


@pytest.mark.parametrize(
    "odd",
    [
        lambda weight: weight.to_sparse(),
        lambda weight: weight.to("meta"),
        lambda weight: weight.to(torch.float8_e4m3fn),
        lambda weight: torch.nested.nested_tensor([weight]),
    ],
    ids=["sparse", "without values", "8 bits", "nested"],
)
def test_a_probe_in_a_form_that_cannot_be_computed_with_is_refused_in_a_sentence(tmp_path, odd):
    model = tiny_model("llama")
    torch.save({"weight": odd(torch.randn(model.sizes.d_vocab, model.sizes.d_model))}, tmp_path / "odd.pt")
    with pytest.raises(RefusedError, match=r"odd\.pt with weight in a form .*Save it as plain float32"):
        import_probes(model, tmp_path / "odd.pt", 1, 0)


@pytest.mark.parametrize("content", ["module", b"\x80\x04.", b"hi"], ids=["code", "empty", "text"])
def test_a_file_that_is_more_or_less_than_tensors_is_refused_without_a_way_to_run_it(tmp_path, recwarn, content):
    """PyTorch's own words say how such a file can be run all the same, and are warned beside."""
    if content == "module":
        torch.save(torch.nn.Linear(2, 2), tmp_path / "odd.pt")
    else:
        (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(FileError, match="as tensors alone") as refused:
        import_probes(tiny_model("llama"), tmp_path / "odd.pt", 1, 0)
    assert "weights_only" not in str(refused.value) and not [w for w in recwarn if "load" in str(w.message)]


def test_a_published_probe_reads_states_as_they_are(model, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    file = published(model, tmp_path / "layer0_tgtidx-1.ckpt", bias=True)
    probes = import_probes(model, file, depth=1, offset=-1)
    assert probes.reads_raw and probes.card["quality"].startswith("unmeasured")
    assert probes.card["imported"][0]["file"] == file.name and probes.numbers[1, -1]["test_accuracy"] is None
    pieces = cut(model, [(0, [0, 5, 9, 12, 40])])
    states = collect(model, pieces, (1,), raw=True)[1]
    need = needs_of((1,), raw=True)[1]
    assert torch.equal(states, observe(model, [Prompt.ids([0, 5, 9, 12, 40])], [need])[need][0, 0])
    held = torch.load(file, weights_only=True)
    expected = (states @ held["weight"].T + held["bias"]).log_softmax(-1)
    y = torch.tensor([3, 0, 5, 9, 12])
    own, _, best = probes.score(1, -1, states, probes.classes, y)
    torch.testing.assert_close(own, expected[torch.arange(5), y], atol=1e-4, rtol=1e-4)
    assert torch.equal(best, expected.argmax(1))


def test_imported_probes_join_each_other_and_lose_none_unasked(model, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    one, other = (published(model, tmp_path / f"{seed}.ckpt", seed) for seed in (1, 2))
    import_probes(model, one, 1, 0)
    both = import_probes(model, other, 1, -1)
    assert set(both.maps) == {(1, 0), (1, -1)} and len(both.card["imported"]) == 2
    with pytest.raises(InputError, match="imported already"):
        import_probes(model, other, 1, 0)
    assert import_probes(model, other, 1, 0, replacing=True).digest != both.digest
    assert len(find(model.identity.key, kind="imported").card["imported"]) == 2


def test_two_imports_at_once_keep_each_other(model, monkeypatch, tmp_path):
    """As of a loop in a shell with `&`: each read what was there, and the last to write lost the other's."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    joined, others = published_module._joined, []

    def slowly(before, *rest):
        if not others:
            others.append(Thread(target=import_probes, args=(model, published(model, tmp_path / "b.pt"), 2, 0)))
            others[0].start()
            others[0].join(1)
        return joined(before, *rest)

    monkeypatch.setattr(published_module, "_joined", slowly)
    import_probes(model, published(model, tmp_path / "a.pt", seed=1), 1, 0)
    others[0].join(60)
    assert set(find(model.identity.key, kind="imported").maps) == {(1, 0), (2, 0)}


def test_a_lock_of_another_user_keeps_nobody_from_a_folder_that_both_may_write(model, monkeypatch):
    with TemporaryDirectory() as name:  # what lies above `tmp_path` others may not enter
        root = Path(name)
        monkeypatch.setenv("WORKBENCH_CACHE", str(root / "cache"))
        import_probes(model, published(model, root / "a.pt"), 1, 0)
        file, folder = published(model, root / "b.pt", seed=1), default_path(model.identity.key, "imported").parent
        for place in (root, *root.rglob("*")):
            place.chmod(place.stat().st_mode | (0o777 if place.is_dir() else 0o444))
        (folder / ".erasure-imported.lock").chmod(0o600)
        with as_another_user():
            if not os.access(file, os.R_OK):
                pytest.skip(f"others may not enter {root.parent}")
            import_probes(model, file, 2, 0)
        assert set(find(model.identity.key, kind="imported").maps) == {(1, 0), (2, 0)}


def test_other_imported_probes_are_measured_anew(model, monkeypatch, tmp_path):
    """What was kept of those before them would be shown as of these."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    measured, made_here = TokenErasureAccuracy(kind="imported"), TokenErasureAccuracy()
    keys = [measured.spec_key(model, None)]
    for seed in (1, 2):
        import_probes(model, published(model, tmp_path / f"{seed}.ckpt", seed), 1, 0, replacing=True)
        keys.append(measured.spec_key(model, None))
    assert len(set(keys)) == 3 and made_here.artifact(model) == ""


def test_what_does_not_fit_is_refused_with_the_reason(model, made, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    wide = published(model, tmp_path / "wide.ckpt", d_model=48)
    large = published(model, tmp_path / "large.ckpt", d_vocab=101)
    torch.save({"weight": torch.zeros(96, 32), "other": torch.zeros(2, 2)}, tmp_path / "two.ckpt")
    torch.save({"weight": torch.full((96, 32), torch.nan)}, tmp_path / "nan.ckpt")
    torch.save({"weight": Recipe()}, tmp_path / "object.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(wide.read_bytes()[:300])
    for file, reason in {
        wide: "48 dimensions", large: "101 tokens", "two.ckpt": "one weight", "nan.ckpt": "finite",
        "object.ckpt": "tensors alone", "cut.ckpt": "tensors alone",
    }.items():  # fmt: skip
        with pytest.raises((RefusedError, FileError), match=reason):
            import_probes(model, tmp_path / file, 1, 0)
    fitting = published(model, tmp_path / "fits.ckpt")
    for place in ((None, 0), (1, None), (7, 0), (1, 1)):
        with pytest.raises(InputError):
            import_probes(model, fitting, *place)
    with pytest.raises(UnavailableError, match="no file"):
        import_probes(model, tmp_path / "missing.ckpt", 1, 0)
    with pytest.raises(RefusedError, match="weights"):
        import_probes(tiny_model("llama", n_layers=3, seed=1), made[1])
    assert not (tmp_path / "cache").exists()


def test_a_file_that_was_made_here_is_taken_with_its_card(model, made, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    import_probes(model, made[1])
    assert find(model.identity.key).card == made[0].card
    other = tiny_probes(model, tmp_path / "other.safetensors", depths=(2, 3))
    with pytest.raises(InputError, match="--replace"):
        import_probes(model, tmp_path / "other.safetensors")
    assert import_probes(model, tmp_path / "other.safetensors", replacing=True).digest == other.digest


def test_the_import_command_says_that_the_quality_is_unmeasured(model, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    parser = argparse.ArgumentParser()
    add_import_arguments(parser)
    file = str(published(model, tmp_path / "layer0_tgtidx-1.ckpt"))
    assert import_cli(parser.parse_args([file, "--layer", "0", "--offset", "-1"]), model) == 0
    printed = capsys.readouterr().out
    assert "not measured" in printed and "unmeasured" in printed and "erasure-imported.safetensors" in printed
    assert set(find(model.identity.key, kind="imported").maps) == {(1, -1)}


# going on, and bad input


def test_new_probes_join_those_of_the_same_text_and_recipe(model, made, tmp_path):
    path, texts = tmp_path / "p.safetensors", []
    tiny_probes(model, path, depths=(1, 3), offsets=(0, -1))
    joined = tiny_probes(model, path, depths=(1,), offsets=(-2, -3), progress=lambda s, t: texts.append(t))
    assert set(joined.maps) == {(1, 0), (1, -1), (1, -2), (1, -3), (3, 0), (3, -1)}
    assert any("offset -3" in t for t in texts) and not any("offset 0" in t or "depth 3" in t for t in texts)
    assert all(torch.equal(joined.maps[1, -2][i], made[0].maps[1, -2][i]) for i in (0, 1))
    other = tiny_probes(model, path, depths=(2,), recipe=Recipe(epochs=1, lr=1e-3, batch=512, dtype="float32"))
    assert other.depths == (2,)  # another recipe: nothing of before is kept
    path.write_bytes(path.read_bytes()[:500])
    assert tiny_probes(model, path, depths=(1,), offsets=(0,)).depths == (1,)  # a damaged file is replaced
    tiny_probes(model, path, depths=(2,), recipe=Recipe(epochs=1, lr=1e-3, batch=512, dtype="float32"))
    texts.clear()
    tiny_probes(model, path, depths=(2,), recipe=Recipe(epochs=1, lr=1e-3, batch=512, dtype="float32"), again=True,
                progress=lambda s, t: texts.append(t))  # fmt: skip
    assert any("offset 0" in text for text in texts)


def test_a_stopped_training_goes_on_and_ends_the_same(model, made, tmp_path):
    path, seen = tmp_path / "erasure.safetensors", []

    def stop(share, text):
        seen.append((share, text))
        if "depth 1, offset -2" in text:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(model, random_pieces(model), depths=(1, 3), recipe=QUICK, path=path, progress=stop)
    assert not path.exists()
    texts = []
    again = train(
        model, random_pieces(model), depths=(1, 3), recipe=QUICK, path=path, progress=lambda s, t: texts.append((s, t))
    )
    assert not any("depth 1, offset 0" in text or "depth 1, offset -1" in text for _, text in texts)
    assert [share for share, _ in texts] == sorted(share for share, _ in texts) and texts[-1][0] == pytest.approx(1)
    assert again.digest == made[0].digest
    assert {file.name for file in tmp_path.iterdir()} == {"erasure.safetensors", "erasure.json"}


@pytest.mark.parametrize("other", [{"recipe": Recipe(epochs=2, lr=2e-3, batch=512, dtype="float32")}, {}, "depths"])
def test_of_two_trainings_at_once_neither_costs_the_other_its_work(model, made, tmp_path, other):
    """The first to end took away the parts of both, and the last lost what the first had kept."""
    path, begun = tmp_path / "erasure.safetensors", []
    more = {"depths": (2,)} if other == "depths" else {"depths": (1, 3), **other}

    def meanwhile(share, text):
        if "depth 3, offset -1" in text and not begun:
            begun.append(tiny_probes(model, path, **more))

    both = tiny_probes(model, path, depths=(1, 3), progress=meanwhile)
    assert begun and both.depths == ((1, 2, 3) if other == "depths" else (1, 3))
    assert all(torch.equal(both.maps[key][0], W) for key, (W, _) in made[0].maps.items())
    if other == "depths":
        assert torch.equal(both.maps[2, 0][0], begun[0].maps[2, 0][0])
    assert {file.name for file in tmp_path.iterdir()} == {"erasure.safetensors", "erasure.json"}


class Killed(BaseException):
    """Behind it nothing is written any more, as behind kill -9."""


def test_killed_before_any_file_the_same_again_ends_the_same(model, tmp_path, monkeypatch):
    """Two probes, what analyses read, and its card: four files."""
    write, left = trainer.write_whole, [10**9]

    def until(path, content):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return write(path, content)

    def run(name):
        return train(model, random_pieces(model), depths=(1,), offsets=(0, -1), recipe=QUICK, path=tmp_path / name)

    for module in (trainer, artifact):
        monkeypatch.setattr(module, "write_whole", until)
    whole, writes = run("whole.safetensors"), 10**9 - left[0]
    assert writes == 4
    for kept in range(writes):
        left[0] = kept
        with pytest.raises(Killed):
            run(f"{kept}.safetensors")
        left[0] = 10**9
        assert run(f"{kept}.safetensors").digest == whole.digest
    names = {f"{name}{ending}" for name in ("whole", *range(writes)) for ending in (".safetensors", ".json")}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_bad_input(model, tmp_path):
    path = tmp_path / "p.safetensors"
    with pytest.raises(InputError, match="tokens to learn from"):
        train(model, random_pieces(model, n_train=4), depths=(1, 3), path=path)
    with pytest.raises(InputError, match="depth 7"):
        train(model, random_pieces(model), depths=(7,), path=path)
    with pytest.raises(InputError, match="offsets"):
        train(model, random_pieces(model), offsets=(1,), path=path)
    with pytest.raises(InputError, match="tokenizer"):
        train(model, sentences(), path=path)
    assert recommended_depths(30) == (2, 20) and recommended_depths(2) == (1, 2)


def test_the_command_trains_on_files_and_prints_its_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    for document in sentences().documents:
        (tmp_path / f"{document.name}.txt").write_text(document.text, encoding="utf-8")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    model = speller()
    files = [str(path) for path in sorted(tmp_path.glob("*.txt"))]
    arguments = parser.parse_args(["--corpus", *files, "--layers", "0", "2", "--offsets", "0", "-1", "--epochs", "1"])
    assert cli(asked(arguments), model) == 0
    printed = capsys.readouterr().out
    assert "erasure.safetensors" in printed and printed.count("not run") == 4
    assert find(model.identity.key).depths == (1, 3)
    with pytest.raises(InputError, match="one of them"):
        asked(parser.parse_args(["--layers", "1", "--depths", "1"]))
    (tmp_path / "empty").mkdir()
    for word, said in (("empty", "no text in"), (Path(files[0]).name, "at least 3")):
        with pytest.raises(InputError, match=said):  # without a model
            asked(parser.parse_args(["--corpus", str(tmp_path / word)]))


def test_words_are_found_where_they_are_cut():
    strings = [
        " The",
        " sys",
        "config",
        ",",
        " un",
        "like",
        "ly",
        "_x",
        " (",
        "fold",
        "er",
        ")",
        " 3",
        "rd",
        " x1",
        "y",
    ]
    laid = lambda strings: Spans.laid([string.encode() for string in strings])
    assert multi_token_words(laid(strings)) == [Word(1, 2), Word(9, 10)]  # not un-like-ly_x, nor x1y
    assert Word(4, 6) in letter_runs(laid(strings)) and Word(1, 2) in letter_runs(laid(strings))
    masks = place_masks([laid(strings)], -1, 0)
    assert np.flatnonzero(masks["last"]).tolist() == [2, 10] and not masks["mid"].any()
    assert multi_token_words(laid(["a", "bc", "d", " e"])) == [Word(0, 2)]
    assert np.flatnonzero(place_masks([laid(["a", "bc", "d", " e"])], -2, 0)["mid"]).tolist() == [1]
    assert multi_token_words(laid(["<s>", "ab", "c"]), first=1) == [Word(1, 2)]
    assert multi_token_words(laid(["ab(", "cd", "e"])) == []  # the bracket is in the word's first token


def test_a_random_twin_is_its_seeds_and_draws_nothing_of_everybodys():
    """As the configuration's own initialisation with that seed; whoever samples meanwhile gets what they would get."""
    model = tiny_model("gpt2")
    torch.manual_seed(6)
    expected = AutoModelForCausalLM.from_config(model.adapter.hf_config, dtype=torch.float32)
    state = torch.random.get_rng_state()
    found = random_twin(model, 6).adapter.hf_model
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(expected.named_parameters(), found.parameters(), strict=True)
    other = [name for (name, one), twin in pairs if not torch.equal(one, twin)]
    assert other == ["transformer.wte.weight"]  # the trained embedding, and the unembedding that is tied to it
