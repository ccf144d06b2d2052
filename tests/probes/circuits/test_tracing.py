"""Causal tracing: what its sentence says of windows, and of targets of several tokens."""

import numpy as np
import pytest

from probes.circuits import causal_tracing
from probes.circuits.causal_tracing import CausalTracing
from tests.tiny_models import tiny_model
from workbench.models.prompt import Prompt
from workbench.observation.sweeps import base_run

CLEAN = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])


def test_tracing_says_that_a_window_was_restored_and_which():
    """It named one layer, where five were put back together."""
    recovered = np.zeros((6, 4))
    recovered[[2, 3], 1], recovered[5, 3] = (0.6, 0.9), 1.0
    tell = lambda width: causal_tracing._summary(
        recovered, 2.0, np.ones(2), "nats", (1,), "mlp_out", ["", "a", "b", "c"], causal_tracing._spans(6, width)
    )
    assert "with mlp_out of layers 1 to 5 at token 1 a: 90%" in tell(5) and "with mlp_out of layer 3 at" in tell(1)
    assert "last token at windows around layers 2 to 3, and at the last one at windows around layer 5." in tell(5)
    recovered[:, :3] = 0
    assert "restoring mlp_out of one window brings" in tell(5) and "restoring one mlp_out brings" in tell(1)


def test_what_brings_back_next_to_nothing_is_no_place_where_most_comes_back():
    """`most comes back with resid_post of layer 0 at token 0: 0%`, where rounding was the largest."""
    recovered = np.zeros((2, 4))
    recovered[:, 3] = 1.0
    for most, said in ((0.0, "none of it."), (1.3e-5, "less than 1% of it."), (0.02, "at token 1 a: 2%.")):
        recovered[1, 1] = most
        spans = causal_tracing._spans(2, 1)
        told = causal_tracing._most(recovered[:, :3], "resid_post", ["", "a", "b", "c"], spans)
        assert told.endswith(said)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox"])
def test_tracing_of_a_target_of_several_tokens_is_about_the_prompts_own(kind):
    """The target's first tokens stand behind the prompt: they were taken for its last one, and for embeddings of it."""
    model = tiny_model(kind)
    result = CausalTracing(subject="2,3", target="#31 #7 #9", draws=1).run(model, CLEAN)
    assert result.sizes["pos"] == 12 and result.attrs["position"] == 9
    own = base_run(model, CLEAN).states[0, 1:].std()
    assert result.attrs["noise_standard_deviation"] == pytest.approx(3 * float(own), rel=1e-6)
    recovered = result["recovered"].values
    layer, pos = np.unravel_index(np.argmax(recovered[:, :9]), (2, 9))
    if recovered[layer, pos] >= 0.005 and "no change" not in result.attrs["summary"]:
        assert f"of layer {layer} at token {pos} " in result.attrs["summary"]
    (line,) = (one for one in causal_tracing.profile_figure(result).data if one.name == "last token")
    assert list(map(float, line.y)) == result["effect"][:, 9].values.tolist()
