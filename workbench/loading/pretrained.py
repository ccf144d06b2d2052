"""load() and wrap(): the one place that makes a Model.

Weights stay raw (as published) and attention is eager, since patterns must be seen. Only safetensors and GGUF are read,
and remote code is never run. A bridge is put around a twin of the model; what another twin says is what the self-check
holds the bridge against.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from workbench.arguments import fitted
from workbench.errors import InputError, ModelError, Note, SlowWarning, UnavailableError
from workbench.files import at_home
from workbench.loading import bundled, passed, settings, weights
from workbench.loading.bridge import BridgeAdapter, boot
from workbench.loading.files import adapters, gguf
from workbench.loading.files.checkpoint import check_directory, need_content, read, readable
from workbench.loading.given import buildable, check_model, check_tokenizer, check_weights
from workbench.loading.libraries import need_libraries
from workbench.loading.placement import Map, Place, placed, usable_device, usable_place
from workbench.loading.selfcheck import check_ids, selfcheck
from workbench.loading.toys import checkpoints, recipes
from workbench.loading.toys.adapter import ToyAdapter
from workbench.loading.toys.circuits import induction_circuit
from workbench.loading.toys.transformer import ToyTransformer
from workbench.loading.twin import twin
from workbench.loading.windows import reference_length
from workbench.models.model import Adapter, Identity, Model
from workbench.models.passes import undisturbed
from workbench.models.selfcheck import LOGITS_EQUAL, SelfCheck
from workbench.processor import slow_format

__all__ = ["TOYS", "load", "usable_device", "wrap"]

# Toys that load by name: circuits written into weights by hand, and those that are trained on first use.
_BY_HAND = {"toy-induction": induction_circuit}
TOYS = (*_BY_HAND, *(f"{recipes.PREFIX}{task}" for task in recipes.RECIPES))

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

Progress = Callable[[str, float, str], None]


@fitted("name")
def load(
    name: str | os.PathLike[str] = bundled.NAME,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "auto",
    revision: str | None = None,
    allow_network: bool = False,
    check: bool = False,
    step: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    device_map: Map | None = None,
) -> Model:
    """Load a model and check how it behaves, unless the same weights passed here before.

    name: `smollm2-135m` (the default, fetched and converted on first use), a toy such as `toy-induction`, a local
    directory in Hugging Face format (safetensors), a `.gguf` file, or a hub name with `allow_network=True`;
    `toy:induction` and its like are trained on first use and kept (`workbench.loading.toys.recipes` says what such a
    name may hold). dtype: torch.float32, bfloat16, float16 or float64; toys are float32 on the CPU, and say so where
    another is asked for. device: "auto" takes CUDA where there is one. check: check it also where it passed before (see
    `workbench.loading.passed`). step, seed: of a toy's training, its last step and seed 0 unless given. progress:
    `(stage, share, text)`. device_map: of a model larger than one device, "auto" or devices by modules (`{"": 0}`), as
    transformers takes it.

    Raises InputError for an unknown name, UnavailableError where files or the network are missing, ModelError where
    files are not whole, hold what would not be used, or are of an architecture that cannot be instrumented. Warns
    (SlowWarning) of a dtype that the processor has no instructions for.
    """
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(name, str):
        raise InputError(
            f"{name!r} as a model", "a name or the path of a directory", "Give a text; wrap() takes a model"
        )
    _need_use(name, dtype, revision)
    asked, place = str(device), usable_place(str(device), device_map)
    if (recipes.is_toy(name) or name in _BY_HAND) and device_map is not None:
        raise InputError(f"a device_map for {name!r}", "a model that needs several devices", "Leave it out")
    if (recipes.is_toy(name) or name in _BY_HAND) and (dtype != torch.float32 or asked not in ("auto", "cpu")):
        stays = f"{name} is float32 on the CPU, as toys are made, and not {_name(dtype)} on {asked}."
        warnings.warn(stays, Note, stacklevel=3)  # at the caller of load(), behind what checks arguments
    if recipes.is_toy(name):
        return _trained(name, step, seed, progress)
    if step is not None or seed is not None:
        raise InputError(f"a step or a seed of {name!r}", "those of a toy that is trained", "Leave them out")
    first = place if isinstance(place, str) else usable_device("auto")
    if name not in TOYS and (said := slow_format(dtype, first)) is not None:  # before anything slow is done
        warnings.warn(said, SlowWarning, stacklevel=3)
    with torch.inference_mode(False):  # weights made inside it could never be differentiated
        return _load(name, dtype, place, check, revision, allow_network, progress)


def _need_use(name: str, dtype: torch.dtype, revision: str | None) -> None:
    """InputError for a dtype that no model computes in, and for a revision that would be passed over in silence."""
    if dtype not in _DTYPES:
        known = ", ".join(map(_name, _DTYPES))
        raise InputError(f"dtype={dtype}", f"one of {known}", "Choose one of these: weights are floating-point numbers")
    is_here = recipes.is_toy(name) or name in (*_BY_HAND, bundled.NAME) or os.path.exists(at_home(name))
    if revision is not None and is_here:
        raise InputError(f"revision={revision!r} of {name!r}", "that of a model on the hub", "Leave it out")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _load(
    name: str,
    dtype: torch.dtype,
    device: Place,
    check: bool,
    revision: str | None,
    allow_network: bool,
    progress: Progress | None,
) -> Model:
    if name in (*_BY_HAND, bundled.NAME):
        need_libraries()
    if name in _BY_HAND:
        return wrap(_BY_HAND[name](), None, name=name)
    if name == bundled.NAME:
        model = _pretrained(name, _default(progress), dtype, device, check, badge=bundled.BADGE)
        # Its file does not say. Its own chats begin with the token, and its attention sink stands on it.
        model.tokenizer.add_bos_token = True
        return model
    path = at_home(name)
    if os.path.isdir(path):  # false, and no error, for what is too long for a path
        return _directory(name, path, dtype, device, check, allow_network)
    if path.suffix.lower() == ".gguf":
        if not os.path.isfile(path):
            raise ModelError(f"no file at {path}", "a GGUF file", "Check the path")
        need_content(path)
        need_libraries()
        with readable(str(path)):
            directory, badge = gguf.converted(path, progress)
        return _pretrained(path.stem, directory, dtype, device, check, badge=badge)
    if not allow_network:
        known = ", ".join((bundled.NAME, *TOYS))
        raise InputError(
            f"the model {name!r}", f"{known}, a local directory, a .gguf file, or a hub name with the network allowed",
            "Correct the name, or allow the network (allow_network=True, on the command line --allow-network)",
        )  # fmt: skip
    return _pretrained(name, name, dtype, device, check, revision=revision, network=True)


def _trained(name: str, step: int | None, seed: int | None, progress: Progress | None) -> Model:
    """A toy at a step of its training, which is made up to there if it is not kept."""
    recipe, at = recipes.asked(name, step, seed)
    need_libraries()
    kept = checkpoints.Kept(recipe)
    kept.ensure(at, progress)
    last = recipe.steps if at is None else at
    return wrap(kept.module(last), recipe.task.tokenizer(), name=recipes.name_of(recipe, at))


def _default(progress: Progress | None) -> Path:
    """The default model's directory; one that is not as it was written is made anew, with a word."""
    try:
        return bundled.ensure(progress=progress)
    except bundled.DamagedError as damage:
        note = f"The default model was damaged ({damage.got.partition(', ')[2]}); it is made anew."
        if progress is None:
            warnings.warn(note, UserWarning, stacklevel=5)  # at the caller of load()
        else:
            progress("note", 0.0, note)
        try:
            return bundled.rebuild(progress=progress)
        except UnavailableError as reason:
            raise UnavailableError(
                damage.got, damage.expected, f"Making it anew failed: {str(reason)[:-1]}"
            ) from reason


def _directory(name: str, path: Path, dtype: torch.dtype, device: Place, check: bool, network: bool) -> Model:
    """A directory in Hugging Face format: a model, an adapter and its base, or a model with an adapter beside it."""
    if not (path / adapters.CONFIG).is_file():
        check_directory(path)
        return _pretrained(name, path, dtype, device, check)
    if not isinstance(device, str):
        raise InputError(f"a device_map for the adapter in {path}", "a whole model", "Merge it, and save the model")
    adapters.need_peft(path)
    need_libraries()
    if (path / "config.json").is_file():
        check_directory(path)
        with adapters.without(path) as bare, readable(name):
            found = read(_source(bare), dtype)
        base = f"the base in {path.name}"
    else:
        base = adapters.base_of(path)
        if not os.path.isdir(base) and not network:
            raise InputError(
                f"an adapter in {path} of the base {base!r}, which is no directory here",
                "its base in a local directory, or the network allowed",
                "Write the directory into adapter_config.json, or allow the network (--allow-network)",
            )
        with readable(base):
            found = read(_source(base, network=not os.path.isdir(base)), dtype)
    with readable(name):
        found = adapters.merged(found, path, base)
    held = found.model.to(device)
    return _followed(instrument(held, found.tokenizer, name=name, badge=found.badge), held, thorough=False)


@fitted("model", "tokenizer")
def wrap(model: Any, tokenizer: Any, *, name: str | None = None, badge: str = "", revision: str | None = None) -> Model:
    """Instrument a model that is in memory: a Hugging Face causal language model, or one of our small modules.

    The model stays as it is, and yours to call, save, train and generate with in any thread: what is instrumented is a
    twin that shares its weights (see `workbench.loading.twin`), with attention made eager and in evaluation mode. What
    you change in the weights, the configuration, buffers, settings and hooks of modules is taken up before the next
    pass, by the hash and the self-check too: a hook that the model has acts in our passes, one taken off does not.

    Raises InputError for what is no causal language model, and ModelError for one that cannot be instrumented. Warns
    (UserWarning) of a model in training mode that drops out.
    """
    need_libraries()
    check_tokenizer(tokenizer)
    _check_held(model)
    if model.training and _drops_out(model):
        said = (
            "The model is in training mode; passes here are in evaluation mode, without its dropout. It stays as it is."
        )
        warnings.warn(said, UserWarning, stacklevel=3)  # at the caller of wrap(), behind what checks arguments
    with torch.inference_mode(False):
        return _followed(instrument(model, tokenizer, name=name, badge=badge, revision=revision), model, thorough=True)


def _check_held(model: Any) -> None:
    """What `check_model` and `check_weights` raise, at first and after each change: an adapter that was put on since is
    switched by what no look at weights and settings sees."""
    check_weights(model) if isinstance(model, ToyTransformer) else check_model(model)


def _drops_out(model: torch.nn.Module) -> bool:
    """Whether a pass in training mode draws anything: dropout modules, and rates of attention that is one function."""
    rates = [getattr(part, name, 0) for part in model.modules() for name in ("p", "attention_dropout", "dropout")]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _followed(model: Model, held: Any, *, thorough: bool) -> Model:
    """The model, made anew whenever its weights have changed. held: who has them."""
    made = model.made

    def again() -> Model:
        _check_held(held)
        with torch.inference_mode(False):
            return instrument(held, model.tokenizer, name=made.name, badge=made.badge, revision=made.revision)

    look = lambda: (weights.traces(held.named_parameters, thorough=thorough), settings.held_settings(held))
    model.follow = weights.Followed(model, look, again, held.parameters)
    return model


@undisturbed()
def instrument(
    model: Any,
    tokenizer: Any,
    *,
    name: str | None = None,
    badge: str = "",
    revision: str | None = None,
    known: str | None = None,
    check: bool = True,
) -> Model:
    """The Model around a module. known: the hash of its weights, where it is known without looking at them. check:
    make the self-check also where these weights have passed it."""
    parameter = next(model.parameters())
    toy = isinstance(model, ToyTransformer)
    identity = Identity(
        name=name or getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__,
        weights_hash=known or "",
        revision=revision,
        dtype=str(parameter.dtype).removeprefix("torch."),
        device=parameter.device.type,
        architecture="toy" if toy else type(model).__name__,
        badge=badge,
        settings_hash=settings.settings_hash(model),
    )
    earlier = None
    adapter: Adapter
    with buildable(model):
        if toy:
            adapter = ToyAdapter(twin(model))
        else:
            if known and not check:
                earlier = passed.kept(passed.circumstances(identity, model, tokenizer))
            adapter = boot(_eager(model), model, earlier.measured if earlier else None)
    if not known:
        identity = replace(identity, weights_hash=weights.weights_hash(adapter.parameters()))
    with buildable(model):
        wrapped = Model(identity, adapter, tokenizer)
        wrapped.selfcheck = earlier.check if earlier else _checked(wrapped, None if toy else model, check)
    for item in wrapped.selfcheck.failed((LOGITS_EQUAL,)):
        said = f"Passes on {identity.name} are not those of the model that was given: {item.sentence}. Analyses refuse."
        warnings.warn(said, UserWarning, stacklevel=2)
    return wrapped


def _checked(wrapped: Model, held: Any, check: bool) -> SelfCheck:
    """Its self-check: made now and kept, or unless `check` the one that was passed before under the same circumstances.

    held: the plain model, whose logits the bridge's are held against; None for a toy, which has no bridge.
    """
    if check:
        found = selfcheck(wrapped, _reference(wrapped, held))
        if held is not None and not found.passed:
            passed.forget(passed.circumstances(wrapped.identity, held, wrapped.tokenizer))
        return found
    here = passed.circumstances(wrapped.identity, held, wrapped.tokenizer)
    if earlier := passed.kept(here):
        return earlier.check
    found = selfcheck(wrapped, _reference(wrapped, held))
    assert isinstance(wrapped.adapter, BridgeAdapter), "a toy is always checked"
    passed.keep(here, found, wrapped.adapter.measured)
    return found


def _reference(wrapped: Model, held: Any) -> torch.Tensor | None:
    """What another twin says on `check_ids`."""
    if held is None:
        return None
    plain = _eager(held)
    n_vocab = plain.get_input_embeddings().weight.shape[0]
    ids = check_ids(wrapped.tokenizer, n_vocab, reference_length(plain.config.get_text_config()))[0]
    with torch.no_grad():
        logits: torch.Tensor = plain(ids.to(plain.device), use_cache=False).logits
    return logits


def _eager(held: Any) -> Any:
    """A twin for inference, with attention whose patterns can be seen."""
    model = twin(held).eval()
    try:
        model.set_attn_implementation("eager")
    except ValueError as error:
        raise ModelError(
            f"a model without eager attention ({error})", "attention patterns that can be seen", "Use another model"
        ) from error
    return model


def _pretrained(
    name: str,
    place: str | Path,
    dtype: torch.dtype,
    device: Place,
    check: bool,
    *,
    badge: str = "",
    revision: str | None = None,
    network: bool = False,
) -> Model:
    """A directory, or what a name on the hub stands for."""
    need_libraries()
    with readable(name), _quiet():
        known = weights.hash_of_files(place, dtype) if isinstance(place, Path) else ("", None)
        found = placed(_source(place, revision, network), dtype, device)
        if isinstance(place, Path) and weights.hash_of_files(place, dtype)[0] != known[0]:
            raise ModelError(
                f"files in {place} that were written while they were read", "a model that stays as it is meanwhile",
                "Wait until it is written, then load it again",
            )  # fmt: skip
    badge = "; ".join(filter(None, (badge, found.badge)))
    held = found.model
    model = instrument(held, found.tokenizer, name=name, badge=badge, revision=revision, known=known[1], check=check)
    if known[0] and known[1] is None:
        weights.keep_hash(known[0], model.made.weights_hash)
    return _followed(model, held, thorough=False)


def _source(place: str | Path, revision: str | None = None, network: bool = False) -> dict[str, Any]:
    named: dict[str, Any] = {"pretrained_model_name_or_path": str(place), "revision": revision}
    return {**named, "local_files_only": not network, "trust_remote_code": False}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars: ours tell the user what is going on."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


# A hub client that may not reach the network must not try: without this, a missing file costs minutes of retries.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
