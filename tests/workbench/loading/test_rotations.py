"""A prompt's numbers do not depend on its neighbours, nor on the pass before, where rotations depend on the length."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config

from workbench import Prompt, observe, wrap

COMMON = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=96, max_position_embeddings=64, pad_token_id=0,
)  # fmt: skip


def longrope():
    """Short factors up to 16 tokens, long ones from 17 on; four frequencies a head."""
    factors = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [4.0, 5.0, 6.0, 8.0]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16, **factors}
    return Phi3Config(**COMMON, rope_parameters=rope, original_max_position_embeddings=16)


def dynamic():
    """Frequencies of the longest input so far, from 16 tokens on."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    return LlamaConfig(**{**COMMON, "max_position_embeddings": 16}, rope_parameters=rope)


def built(config):
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return hf


def ids(length, seed):
    return torch.randint(1, 96, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("others", [[40], [17, 40, 63], [12, 16]])
def test_neighbours_do_not_turn_a_prompt(others):
    hf, prompt = built(longrope()), ids(13, 0)
    with torch.no_grad():
        alone = hf(torch.tensor([prompt])).logits[0]
    model = wrap(hf, None, name="long")
    assert model.selfcheck.passed, [item.sentence for item in model.selfcheck.items if not item.passed]
    prompts = [Prompt.ids(ids(n, n)) for n in others] + [Prompt.ids(prompt)]
    assert torch.equal(observe(model, prompts, positions="all").logits[-1], alone)
    for row, n in zip(observe(model, prompts, positions="all").logits, others, strict=False):
        assert torch.equal(row, observe(model, Prompt.ids(ids(n, n)), positions="all").logits[0])


def test_the_lengths_do_change_it():
    """So that the test above could fail: a prompt of 13 beside one of 40, padded, is another."""
    hf, prompt = built(longrope()), ids(13, 0)
    with torch.no_grad():
        alone, padded = hf(torch.tensor([prompt])).logits[0], hf(torch.tensor([prompt + [0] * 27])).logits[0, :13]
    assert (alone - padded).abs().max() > 0.01


def test_the_pass_before_does_not_turn_a_prompt():
    """Of 30 and then of 20 tokens: both are beyond the original length, and what was grown for 30 stays for 20."""
    first, second = torch.tensor([ids(30, 1)]), torch.tensor([ids(20, 2)])
    with torch.no_grad():
        fresh = built(dynamic())(second).logits
        remembering = built(dynamic())
        remembering(first)
        assert (remembering(second).logits - fresh).abs().max() > 1e-4  # what the library does
    model = wrap(built(dynamic()), None, name="dynamic")
    with torch.no_grad():
        model.adapter.forward(first)
        assert torch.equal(model.adapter.forward(second), fresh)
