"""Passes with some edges: the two ends, single edges against plain Hugging Face, and nothing left behind."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from probes.circuits.graph.gradients import readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources, with_edges
from tests.beside import Beside
from tests.contract.case import hooks_left
from tests.tiny_models import KINDS, tiny_hf, tiny_model
from workbench.errors import InputError, RefusedError
from workbench.intervene import MLP, Ablate, Attention, Head, Patch, Scale, Steer
from workbench.intervene.units import Residual
from workbench.loading.pretrained import load, wrap
from workbench.models.hooks import ATTN_OUT, RESID_MID, RESID_POST, RESID_PRE
from workbench.models.prompt import Prompt
from workbench.observation.recording import record

SEED = torch.Generator().manual_seed(5)
CLEAN, OTHER = (torch.randint(1, 96, (2, 9), generator=SEED) for _ in range(2))


def logits_of(model, ids):
    with torch.no_grad(), model.lock:
        return model.adapter.forward(ids)[:, -1].float()


def read(model, last):
    with torch.no_grad():
        return readout_logits(model, last[:, -1])


@pytest.mark.parametrize("kind", [*KINDS, "gpt_neo", "phi3", "cohere", "gemma2", "mixtral", "qwen3", "falcon"])
def test_all_edges_are_the_model_and_none_the_other_run(kind):
    """Exact but for rounding: sources are summed in another order than the model's, 1e-6 of what is in the stream."""
    model = tiny_model(kind, n_layers=3)
    graph, other = Graph.of(model.sizes), sources(model, OTHER)
    whole = read(model, with_edges(model, CLEAN, graph.exists, other.added))
    none = read(model, with_edges(model, CLEAN, np.zeros(graph.shape, bool), other.added))
    scale = float(logits_of(model, CLEAN).abs().max())
    assert (whole - logits_of(model, CLEAN)).abs().max() < 1e-5 * scale
    assert (none - logits_of(model, OTHER)).abs().max() < 1e-4 * scale
    half = graph.exists & (np.random.default_rng(0).random(graph.shape) < 0.5)
    moved = read(model, with_edges(model, CLEAN, half, other.added))
    assert (moved - whole).abs().max() > 1e-3 * scale and (moved - none).abs().max() > 1e-3 * scale


@pytest.mark.parametrize("kind", KINDS)
def test_sources_sum_to_the_stream(kind):
    """But for b_O, a constant that no source has where there is no post-norm."""
    model = tiny_model(kind)
    seen = sources(model, CLEAN)
    biases = [model.weights(n).b_O.float() for n in range(2) if model.weights(n).post_attn_gain is None]
    total = seen.added.sum(0) + sum(biases)
    assert (total - seen.last).abs().max() < 1e-5 * seen.last.abs().max()


# --- single edges, by plain Hugging Face -----------------------------------------------------------------------------


class Plain:
    """A tiny Llama or GPT-2 with PyTorch's own hooks: sources of a run, and one edge changed."""

    def __init__(self, kind):
        self.kind, self.hf = kind, tiny_hf(kind, n_layers=2)
        self.gpt2 = kind == "gpt2"
        self.blocks = self.hf.transformer.h if self.gpt2 else self.hf.model.layers

    def parts(self, layer):
        b = self.blocks[layer]
        if self.gpt2:
            return b.ln_1, b.attn.c_proj, b.ln_2, b.mlp
        return b.input_layernorm, b.self_attn.o_proj, b.post_attention_layernorm, b.mlp

    def run(self, ids, hooks=()):
        handles = [getattr(module, f"register_forward_{when}hook")(function) for module, when, function in hooks]
        try:
            with torch.no_grad():
                return self.hf(ids).logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()

    def added(self, ids):
        """What sources add, by name."""
        found, hooks = {}, []
        embedded = lambda module, args, kwargs=None: found.setdefault("input", (args or [kwargs["hidden_states"]])[0])
        hooks.append((self.blocks[0], "pre_", lambda module, args: embedded(module, args)))
        for layer in range(2):
            _, out, _, mlp = self.parts(layer)

            def heads(module, args, layer=layer):
                for head in range(4):
                    columns = slice(8 * head, 8 * head + 8)
                    W = module.weight[columns] if self.gpt2 else module.weight[:, columns].T
                    found[f"a{layer}.h{head}"] = args[0][..., columns] @ W

            hooks.append((out, "pre_", heads))
            hooks.append((mlp, "", lambda module, args, output, layer=layer: found.__setitem__(f"m{layer}", output)))
        self.run(ids, hooks)
        return found

    def changed(self, ids, edge, moved):
        """Logits with `moved` added to what the target of an edge reads."""
        target = edge.split("->")[1]
        if target == "logits":
            final = self.hf.transformer.ln_f if self.gpt2 else self.hf.model.norm
            return self.run(ids, [(final, "pre_", lambda module, args: (args[0] + moved,))])
        layer = int(target[1])
        norm1, out, norm2, _ = self.parts(layer)
        if target.startswith("m"):
            return self.run(ids, [(norm2, "pre_", lambda module, args: (args[0] + moved,))])
        head, what = int(target[4]), target[6]
        # The whole attention reads the changed input, but only this projection: then only this head is taken.
        kept = {}
        attn = self.blocks[layer].attn if self.gpt2 else self.blocks[layer].self_attn
        stream = {}
        hooks = [(norm1, "pre_", lambda module, args: stream.__setitem__("x", args[0]) if "x" not in stream else None)]
        if self.gpt2:

            def edit(module, args, output):
                fresh = args[0].new_tensor(0) + torch.addmm(
                    module.bias, norm1(stream["x"] + moved).view(-1, 32), module.weight
                )
                columns = slice(32 * "qkv".index(what), 32 * "qkv".index(what) + 32)
                output = output.clone()
                output[..., columns] = fresh.view(output.shape)[..., columns]
                return output

            hooks.append((attn.c_attn, "", edit))
        else:
            projection = getattr(attn, f"{what}_proj")
            weight = projection.weight
            hooks.append((projection, "", lambda module, args, output: norm1(stream["x"] + moved) @ weight.T))
        hooks.append((out, "pre_", lambda module, args: kept.__setitem__("z", args[0].clone())))
        self.run(ids, hooks)
        columns = slice(8 * head, 8 * head + 8)

        def take(module, args):
            z = args[0].clone()
            z[..., columns] = kept["z"][..., columns]
            return (z,)

        return self.run(ids, [(out, "pre_", take)])


EDGES = [
    "input->a0.h1<q>", "input->a0.h2<k>", "input->a0.h3<v>", "input->a1.h0<v>", "a0.h0->a1.h3<k>", "a0.h1->a1.h0<k>",
    "a0.h2->a1.h1<q>", "a0.h3->a1.h2<v>", "m0->a1.h1<k>", "m0->a1.h3<v>", "a0.h1->m0", "a1.h2->m1", "input->m1",
    "m0->m1", "input->logits", "a1.h3->logits", "m1->logits",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("edge", EDGES)
def test_one_edge_equals_plain_hugging_face(kind, edge):
    """Also where two query heads share keys and values: the other one keeps its own."""
    plain, model = Plain(kind), tiny_model(kind)
    graph, source = Graph.of(model.sizes), edge.split("->")[0]
    own, other = plain.added(CLEAN)[source], plain.added(OTHER)[source]
    mask = graph.exists.copy()
    mask[graph.place(edge)] = False
    found = read(model, with_edges(model, CLEAN, mask, sources(model, OTHER).added))
    expected = plain.changed(CLEAN, edge, other - own)
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()
    if edge.startswith(("a0", "m0", "input")) and "logits" not in edge:
        assert (expected - plain.run(CLEAN)).abs().max() > 1e-4  # the edge does something


# --- what it leaves, what it refuses ---------------------------------------------------------------------------------


@contextmanager
def stopped_by_the_user(model):
    """In the middle of layer 1."""

    def stop(module, args):
        raise KeyboardInterrupt

    handle = model.adapter.bridge.blocks[1].mlp.original_component.register_forward_pre_hook(stop)
    try:
        yield
    finally:
        handle.remove()


def test_nothing_is_left_behind_and_the_second_run_equals_the_first():
    model = tiny_model("llama")
    graph, before = Graph.of(model.sizes), logits_of(model, CLEAN)
    other = sources(model, OTHER).added
    runs = [with_edges(model, CLEAN, np.zeros(graph.shape, bool), other) for _ in range(2)]
    assert torch.equal(*runs) and hooks_left(model) == 0
    assert torch.equal(logits_of(model, CLEAN), before)
    with pytest.raises(InputError, match="sources of shape"):
        with_edges(model, CLEAN, graph.exists, other[:3])
    with pytest.raises(KeyboardInterrupt), stopped_by_the_user(model):
        with_edges(model, CLEAN, np.zeros(graph.shape, bool), other)
    assert hooks_left(model) == 0 and torch.equal(logits_of(model, CLEAN), before)
    assert not any("forward" in block.attn.__dict__ for block in model.adapter.bridge.blocks)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_models_own_interventions_are_carried_out(kind):
    """A head that writes nothing: its edges do nothing, and all edges are the edited model."""
    edited = tiny_model(kind).edited([Ablate(Head(0, 2))])
    graph = Graph.of(edited.sizes)
    seen, other = sources(edited, CLEAN), sources(edited, OTHER)
    if kind == "llama":
        assert seen.added[graph.heads(0)][2].abs().max() == 0
    whole = with_edges(edited, CLEAN, graph.exists, other.added)
    assert (whole - seen.last).abs().max() < 1e-5 * seen.last.abs().max()
    none = with_edges(edited, CLEAN, np.zeros(graph.shape, bool), other.added)
    assert (none - other.last).abs().max() < 1e-5 * other.last.abs().max()


EDITS = (Ablate(Attention(1)), Scale(Attention(1), 3.0), Ablate(MLP(1)), Steer(1, torch.ones(32), 0.5, ATTN_OUT))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3", "neox"])
@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_what_does_not_arrive_is_no_source(kind, edit):
    """Heads behind which attention is silenced were sources still. What two runs differ by is what their sources do."""
    edited = tiny_model(kind, n_layers=3).edited([edit])
    own, other = sources(edited, CLEAN), sources(edited, OTHER)
    apart = own.last - other.last
    assert ((own.added - other.added).sum(0) - apart).abs().max() < 1e-5 * apart.abs().max()


def test_a_circuit_of_a_silenced_layer_is_that_of_its_weights():
    hf = tiny_hf("llama", n_layers=3)
    with torch.no_grad():
        hf.model.layers[1].self_attn.o_proj.weight.zero_()
    by_hand, edited = wrap(hf, None, name="by hand"), tiny_model("llama", n_layers=3).edited([Ablate(Attention(1))])
    graph = Graph.of(edited.sizes)
    some = graph.exists & (np.random.default_rng(0).random(graph.shape) < 0.5)
    ours, theirs = (read(m, with_edges(m, CLEAN, some, sources(m, OTHER).added)) for m in (edited, by_hand))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_a_state_that_is_set_is_refused():
    """What stands in front of it does not arrive behind it: no edge past it could be changed."""
    model, prompt = tiny_model("llama"), Prompt.ids(CLEAN[0].tolist())
    source = record(model, prompt, [RESID_POST, RESID_MID, RESID_PRE])
    for edit in (Patch(RESID_POST, 0, source, (3,)), Patch(RESID_MID, 1, source), Ablate(Residual(1, 4))):
        with pytest.raises(RefusedError, match=r"with the intervention .*, which sets the residual stream"):
            sources(model.edited([edit]), CLEAN)
    for edit in (Patch(RESID_PRE, 0, source, (3,)), Steer(0, torch.ones(32), 0.1, RESID_MID)):
        edited = model.edited([edit])
        whole = with_edges(edited, CLEAN, Graph.of(model.sizes).exists, sources(edited, OTHER).added)
        assert (whole - sources(edited, CLEAN).last).abs().max() < 1e-4


def test_what_reads_past_its_norm_is_refused():
    hf = tiny_hf("llama")
    model = wrap(hf, None, name="odd")
    mlp = model.adapter.bridge.blocks[1].mlp
    forward = mlp.forward
    mlp.__dict__["forward"] = lambda x, *args, **kwargs: forward(2 * x, *args, **kwargs)
    with pytest.raises(RefusedError, match="reads something else than its norm gives"):
        sources(model, CLEAN)


@pytest.mark.parametrize("which", ["q", "k", "v"])
def test_heads_that_read_with_more_than_their_weights_are_refused(which):
    """An adapter of one's own beside a projection: edges into the head would be those of the base model's."""
    hf = tiny_hf("llama")
    attention = hf.model.layers[1].self_attn
    setattr(attention, f"{which}_proj", Beside(getattr(attention, f"{which}_proj")))
    with pytest.raises(RefusedError, match=f"whose {which} in layer 1 is not what its weights make of the state"):
        sources(wrap(hf, None, name="adapted"), CLEAN)


def test_the_hand_made_circuit_needs_its_edges_only():
    """The induction circuit, carried by five edges: without any one of them the copy is lost."""
    model = load("toy-induction")
    graph = Graph.of(model.sizes)
    ids = torch.tensor([[3, 17, 40, 9, 22, 31, 17]])
    other = torch.tensor([[3, 18, 41, 9, 22, 31, 19]])
    way = ["input->a0.h0<v>", "a0.h0->a1.h0<k>", "input->a1.h0<q>", "input->a1.h0<v>", "a1.h0->logits"]
    added = sources(model, other).added
    answer = lambda edges: int(read(model, with_edges(model, ids, graph.circuit(edges), added)).argmax())
    assert answer(way) == 40
    for edge in way:
        assert answer([one for one in way if one != edge]) != 40
