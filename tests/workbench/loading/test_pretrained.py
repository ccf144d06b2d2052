"""load() and wrap(): what they take, what they refuse, and what identifies a model."""

import json
import os
import shutil
import warnings

import pytest
import torch

from tests.tiny_models import KINDS, tiny_hf, tiny_model
from workbench import load, processor, wrap
from workbench.errors import InputError, RefusedError, SlowWarning, UnavailableError
from workbench.loading import bundled
from workbench.loading.files import kept
from workbench.processor import Processor


def test_a_local_directory_is_the_same_model(default_model, default_model_dir):
    model = load(str(default_model_dir))
    assert model.identity.weights_hash == default_model.identity.weights_hash
    assert model.identity.badge == "" and default_model.identity.badge == bundled.BADGE
    assert model.selfcheck.passed


@pytest.fixture
def old_processor(monkeypatch):
    """A processor without instructions for half precision."""
    monkeypatch.setattr(processor, "this_processor", lambda: Processor("AVX2", bfloat16=False, float16=False))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_says_so_and_passes_its_looser_check(tiny_dir, dtype):
    model = load(str(tiny_dir), dtype=dtype, device="cpu")
    assert model.identity.dtype == str(dtype).removeprefix("torch.")
    assert model.selfcheck.passed, [item.sentence for item in model.selfcheck.items]


@pytest.mark.slow  # some minutes where the processor has no instructions for it
def test_the_default_model_in_half_precision(default_model_dir):
    model = load(str(default_model_dir), dtype=torch.bfloat16)
    assert model.selfcheck.passed, [item.sentence for item in model.selfcheck.items]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_an_old_processor_warns_once_and_changes_nothing(tiny_dir, old_processor, dtype):
    with pytest.warns(SlowWarning, match=str(dtype).removeprefix("torch.")) as caught:
        warned = load(str(tiny_dir), dtype=dtype, device="cpu")
    (said,) = [warning for warning in caught if warning.category is SlowWarning]
    assert said.filename == __file__  # where load() was called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowWarning)
        plain = load(str(tiny_dir), dtype=dtype, device="cpu")
    assert warned.identity == plain.identity
    ids = torch.tensor([[0, 40, 7, 9]])
    with torch.no_grad():
        assert torch.equal(warned.adapter.forward(ids), plain.adapter.forward(ids))


def test_float32_and_toys_are_never_said_to_be_slow(tiny_dir, old_processor):
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowWarning)
        load(str(tiny_dir), device="cpu")
        load("toy-induction", dtype=torch.bfloat16)  # which stays float32


@pytest.mark.parametrize("kind", KINDS)
def test_identity_and_sizes(kind):
    model = tiny_model(kind, n_layers=3)
    s = model.sizes
    assert (s.n_layers, s.n_heads, s.d_model, s.d_head, s.d_vocab, s.n_ctx) == (3, 4, 32, 8, 96, 128)
    assert s.n_key_value_heads == {"llama": 2, "qwen2": 2, "gemma3": 1}.get(kind, 4)
    assert s.parallel == (kind == "neox") and s.sliding == ((0, 2) if kind == "gemma3" else ())
    assert model.identity.weights_hash == tiny_model(kind, n_layers=3).identity.weights_hash
    assert model.identity.weights_hash != tiny_model(kind, n_layers=3, seed=1).identity.weights_hash


@pytest.mark.parametrize("kind", KINDS)
def test_weights_under_standard_names(kind):
    """Repeated key/value heads: query head h reads key/value head h // group."""
    w = tiny_model(kind).weights(1)
    group = 4 // w.W_V.shape[0]
    repeated = w.repeated(w.W_V, dim=0)
    assert repeated.shape == (4, 32, 8)
    for head in range(4):
        assert torch.equal(repeated[head], w.W_V[head // group])


def test_the_toy_circuit_loads_by_name():
    model = load("toy-induction")
    assert model.sizes.n_layers == 2 and model.selfcheck.passed


def test_unknown_names_say_what_there_is():
    with pytest.raises(InputError, match=r"smollm2-135m, toy-induction, toy:bigram-backcopy, .*, a local directory"):
        load("smollm3")


def test_hub_names_need_the_network_to_be_allowed(monkeypatch):
    with pytest.raises(InputError, match="--allow-network"):
        load("some-org/some-model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnavailableError, match="public or that you are logged in for"):
        load("some-org/some-model", allow_network=True)


def test_unusable_directories(tmp_path):
    with pytest.raises(UnavailableError, match=r"config\.json"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle, which is never opened")
    with pytest.raises(UnavailableError, match="safetensors"):
        load(str(tmp_path))
    with pytest.raises(UnavailableError, match="no file"):
        load(str(tmp_path / "none.GGUF"))
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(InputError, match="the model"):
            load(name)
    (tmp_path / "bad.gguf").write_bytes(b"not a gguf file")
    with pytest.raises(UnavailableError, match="no usable model"):
        load(str(tmp_path / "bad.gguf"))


def test_damaged_weights_are_refused(default_model_dir, tmp_path):
    for file in default_model_dir.iterdir():
        if file.name not in ("model.safetensors", "manifest.json"):
            shutil.copy(file, tmp_path / file.name)
    with open(default_model_dir / "model.safetensors", "rb") as whole:
        (tmp_path / "model.safetensors").write_bytes(whole.read(5_000_000))
    with pytest.raises(UnavailableError, match="no usable model"):
        load(str(tmp_path))


@pytest.fixture
def damaged_default(tiny_dir, tmp_path, monkeypatch):
    """A default model that is tiny, sealed, and then altered; the sealed copy that a rebuild would make."""
    place, sound = tmp_path / "models" / bundled.NAME, tmp_path / "sound"
    shutil.copytree(tiny_dir, sound)
    source = {"sha256": bundled.GGUF_SHA256}
    kept.seal(sound, {"format": bundled.FORMAT, "source": source})
    shutil.copytree(sound, place)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))

    def made_anew(progress=None, source=None):
        shutil.rmtree(place)
        shutil.copytree(sound, place)
        return place

    monkeypatch.setattr(bundled, "rebuild", made_anew)
    return sound


def test_a_damaged_default_model_is_made_anew_with_a_word(damaged_default):
    said = []
    model = load(progress=lambda stage, share, text: said.append((stage, text)))
    (note,) = [text for stage, text in said if stage == "note"]
    assert "config.json" in note and "made anew" in note
    assert model.adapter.hf_config.rms_norm_eps != 0.5 and model.selfcheck.passed
    assert load().identity.weights_hash == model.identity.weights_hash  # and nothing is said


def test_a_model_of_another_user_is_not_damaged(damaged_default, tmp_path, monkeypatch):
    """It was made anew for everybody, or "damaged" where the cache was somebody else's."""
    shutil.copytree(damaged_default, tmp_path / "models" / bundled.NAME, dirs_exist_ok=True)

    def forbidden(path, folder):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(kept.digests, "sha256", forbidden)
    with pytest.raises(UnavailableError, match=r"no permission to read .*Ask its owner"):
        load()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_kept_model_has_the_mode_that_the_umask_says(tiny_dir, tmp_path, umask):
    """safetensors keeps a file to its owner, so that nobody else could read a shared cache."""
    made, before = tmp_path / "made", os.umask(umask)
    try:
        shutil.copytree(tiny_dir, made)
        (made / "model.safetensors").chmod(0o600)
        kept.seal(made, {"format": bundled.FORMAT, "source": {"sha256": "0"}})
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in made.iterdir()} == {0o666 & ~umask}


def test_in_python_the_word_is_a_warning(damaged_default):
    with pytest.warns(UserWarning, match=r"config\.json.*made anew") as caught:
        load()
    assert caught[0].filename == __file__


def test_a_damaged_default_model_that_cannot_be_made_anew_is_refused(damaged_default, monkeypatch):
    def unavailable(progress=None, source=None):
        raise UnavailableError("no network", "one", "Connect")

    monkeypatch.setattr(bundled, "rebuild", unavailable)
    with pytest.raises(UnavailableError, match=r"config\.json.*Making it anew failed: .*no network.*\w\.$"):
        load(progress=lambda *_: None)


def test_devices():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="device='cpu'"):
        load("toy-induction", device="cuda")


def test_wrapping_changes_nothing_it_says():
    hf = tiny_hf("llama")
    ids = torch.tensor([[5, 9, 17]])
    with torch.no_grad():
        hf.set_attn_implementation("eager")
        before = hf(ids).logits
        model = wrap(hf, None, name="mine")
        assert torch.equal(model.adapter.forward(ids), before)
    assert model.name == "mine" and json.dumps(model.identity.__dict__)


def test_an_unsupported_architecture_is_refused():
    hf = tiny_hf("llama")
    hf.config.architectures = ["NoSuchForCausalLM"]
    with pytest.raises(RefusedError, match="NoSuchForCausalLM"):
        wrap(hf, None)


def test_a_device_map_is_that_of_transformers_and_no_key_knows_it(tiny_dir):
    plain = load(str(tiny_dir), device="cpu")
    ids = torch.tensor([[0, 40, 7, 9]])
    for given in ({"": "cpu"}, {"model.embed_tokens": "cpu", "model": "cpu", "lm_head": "cpu"}, "auto"):
        mapped = load(str(tiny_dir), device_map=given)
        assert mapped.identity == plain.identity or torch.cuda.is_available()
        with torch.no_grad():
            assert torch.equal(mapped.adapter.forward(ids).cpu(), plain.adapter.forward(ids))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("fast", "one of auto, balanced"), ({}, "an empty device_map"), ({"": "meta"}, r"device_map with '' on 'meta'"),
        ({"model": "disk"}, r"on 'disk'; expected a device"), ({"model": 99}, "on 99; expected a device"),
        ({"model": "auto"}, "on 'auto'"),
    ],
)  # fmt: skip
def test_a_device_map_that_cannot_be_is_refused_before_a_file_is_read(given, said):
    with pytest.raises(InputError, match=said):
        load("no-such-folder", device_map=given)
    with pytest.raises(InputError, match="one of them"):
        load("no-such-folder", device="cpu", device_map="auto")
    with pytest.raises(InputError, match="a device_map for 'toy-induction'"):
        load("toy-induction", device_map="auto")
