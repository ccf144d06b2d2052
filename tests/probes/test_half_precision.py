"""Models of few digits: numpy has no bfloat16, netCDF no float16, and no result may stumble over either."""

import json

import numpy as np
import pytest
import torch

from probes import CATALOG, FlowRoutePart, Neurons
from probes.circuits.graph.gradients import readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources, with_edges
from tests.beside import Beside
from tests.tiny_models import spelling, tiny_hf
from workbench import Need, observe, open_result, save
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.results import dataset
from workbench.analysis.run import run
from workbench.errors import RefusedError, WorkbenchError
from workbench.loading.pretrained import wrap
from workbench.models.hooks import PATTERN
from workbench.observation.metrics import in_steps

ON_PROMPT = [entry for entry in map(CATALOG.get, CATALOG.names) if issubclass(entry, OnPrompt)]


def first_key(pattern, site):  # the README's: it leaves the numbers as the model has them
    return pattern[..., 0].mean(-1)


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def half(request):
    return wrap(tiny_hf("llama").to(request.param), spelling(), name="half")


def test_every_analysis_of_a_prompt_runs_in_half_precision(half):
    """`neurons` and `flow-route-part` were TypeErrors on every bfloat16 model."""
    found = run(half, "the cat sat on the mat", [*ON_PROMPT, FlowRoutePart])
    assert {"neurons", "flow-route-part", "logit-lens"} <= set(found)
    for name, result in found.items():
        if hasattr(result, "error"):
            assert isinstance(result.error, WorkbenchError) and "ScalarType" not in str(result.error), name
            continue
        assert all(v.dtype != np.float16 for v in result.variables.values()), name
    full = Neurons().run(wrap(tiny_hf("llama"), spelling(), name="full"), "the cat sat on the mat")
    np.testing.assert_allclose(found["neurons"]["share"], full["share"], atol=0.02)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "gemma3", "neox"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_circuits_are_those_of_the_model_in_half_precision(kind, dtype):
    """Rounding was taken for weights that stand beside the heads', and every such model was refused."""
    ids, other = torch.randint(1, 96, (2, 2, 9), generator=torch.Generator().manual_seed(5))
    kept: dict = {}
    for name in ("float32", "half"):
        model = wrap(tiny_hf(kind, n_layers=3).to(torch.float32 if name == "float32" else dtype), None, name=name)
        graph, added = Graph.of(model.sizes), sources(model, other).added
        some = graph.exists & (np.random.default_rng(0).random(graph.shape) < 0.5)
        read = lambda last, model=model: readout_logits(model, last[:, -1]).detach()
        masks = {"all": graph.exists, "some": some, "none": np.zeros_like(some)}
        kept[name] = {which: read(with_edges(model, ids, mask, added)) for which, mask in masks.items()}
        kept[name]["other"] = read(sources(model, other).last)
    full, half = kept["float32"], kept["half"]
    scale, coarse = float(full["all"].abs().max()), 8 * torch.finfo(dtype).eps  # some roundings in a row
    assert (half["none"] - half["other"]).abs().max() < coarse * scale
    for which in masks:
        assert (half[which] - full[which]).abs().max() < coarse * scale
    assert (full["some"] - full["all"]).abs().max() > 2 * coarse * scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_what_stands_beside_the_weights_is_seen_in_half_precision(dtype):
    hf = tiny_hf("llama").to(dtype)
    attention = hf.model.layers[1].self_attn
    attention.k_proj = Beside(attention.k_proj).to(dtype)
    with pytest.raises(RefusedError, match="whose k in layer 1 is not what its weights make"):
        sources(wrap(hf, None, name="adapted"), torch.arange(1, 10)[None])


def test_what_a_reducer_leaves_in_half_precision_is_kept_in_single(half, tmp_path):
    need = Need((PATTERN,), first_key, dims="head")
    seen = observe(half, ["the cat", "a"], [need])
    assert seen[need].dtype == torch.float32 and seen.array(need).dtype == np.float32
    whole = seen[need].to(half.adapter.parameters()[0][1].dtype)
    result = dataset(seen.prompt(0), share=("layer head", whole[:, 0], "share", (0, 1)))
    assert result["share"].dtype == np.float32
    save(result, tmp_path / "r.nc")
    assert open_result(tmp_path / "r.nc")["share"].dtype == np.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("louder", [1.0, 16.0])
def test_studies_say_in_which_steps_logits_come(dtype, louder):
    """On the default model in bfloat16 effects are up to 0.19 nats off, and were told in hundredths without a word."""
    hf = tiny_hf("llama").to(dtype)
    with torch.no_grad():
        hf.lm_head.weight *= louder
    model, text = wrap(hf, spelling(), name="half"), "the cat sat on the mat"
    with torch.no_grad():
        largest = hf(torch.tensor([model.tokenizer(text).input_ids])).logits[0, -1].abs().max()
    beyond = torch.nextafter(largest, torch.tensor(torch.inf, dtype=dtype))
    step = float(beyond.double() - largest.double())
    asked = {"corrupt": "the cat sat in the mat"}
    for study, metrics in (("attention-knockout", ("log-probability", "loss", "KL")), ("activation-patching", ("",))):
        for metric in metrics:
            more = asked if study == "activation-patching" else {"metric": metric}
            said = CATALOG.view(study).analysis.of(more).run(model, text).attrs["summary"]
            name = str(dtype).removeprefix("torch.")
            assert (f"Logits in {name} lie {step:.2g} apart here" in said) is (step > 0.005), said
            assert ("apart here" in said) is (step > 0.005 and dtype != torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_studies_of_several_prompts_say_it_too(dtype, tmp_path):
    """A mean over prompts of effects that round by a tenth was told in hundredths, too."""
    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.lm_head.weight *= 16
    model = wrap(hf.to(dtype), spelling(), name="half")
    texts = ["the cat sat on the mat", "the cat sat in the mat", "a dog ran in the sun", "a dog ran on the sun",
             "the dog sat on the sun", "a cat ran in the mat"]  # fmt: skip
    others = [texts[i] for i in (1, 0, 3, 2, 5, 4)]
    pairs = [{"clean": a, "corrupt": b, "answer": " a", "wrong": " b"} for a, b in zip(texts, others, strict=True)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    task = {"task": str(tmp_path / "pairs.jsonl"), "pairs": 1, "tested": 2}
    asked = {
        "head-survey": {"on": "prompts", "prompts": "|".join(texts)},
        "causal-check": {"units": "L1H2", "others": "|".join(texts[1:])},
        "edge-rankings": task | {"rankings": "EAP"},
    }
    for study, given in asked.items():
        said = CATALOG.view(study).analysis.of(given).run(model, texts[0]).attrs["summary"]
        assert ("Logits in bfloat16 lie" in said) is (dtype == torch.bfloat16), (study, said)


def test_tokens_that_are_never_said_do_not_count_among_the_steps():
    """A vocabulary that was filled up has logits of minus infinity, which lie no finite step from anything."""
    model = wrap(tiny_hf("llama").to(torch.bfloat16), spelling(), name="half")
    row = torch.tensor([-torch.inf, 40.0, 1.0])
    assert in_steps(model, row) == in_steps(model, row[1:]) != ""
    assert in_steps(model, row[:1]) == ""
