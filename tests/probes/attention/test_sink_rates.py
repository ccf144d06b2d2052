"""Sink rates: what the stimulus holds, planted rates, a plain loop, random weights, the default model."""

import numpy as np
import pytest
import torch

from probes.attention.sinks import samples
from probes.attention.sinks.sink_rates import CONDITIONS, VIEW, SinkRates
from tests.tiny_models import sinking_toy, spelling, tiny_hf, tiny_model
from workbench import PATTERN, Need, keep, observe
from workbench.corpora import Corpus, Document
from workbench.errors import InputError
from workbench.loading.pretrained import wrap


def test_without_a_tokenizer_there_are_random_and_repeated_tokens_of_the_length_asked():
    model = tiny_model("llama")
    stimulus = SinkRates(samples=3, length=20).stimulus(model)
    assert [CONDITIONS[i] for i in stimulus.fields["condition"]] == ["random tokens"] * 3 + ["repeated token"] * 3
    assert all(len(tokens) == 20 for tokens in stimulus.tokens)
    assert all(len(set(tokens.ids)) == 1 for tokens in stimulus.tokens[3:])
    assert all(len(set(tokens.ids)) > 1 for tokens in stimulus.tokens[:3])
    assert SinkRates(samples=3, length=20).stimulus(model).tokens == stimulus.tokens
    with pytest.raises(InputError, match="n_ctx"):
        SinkRates(length=129).stimulus(model)
    with pytest.raises(InputError, match="uniform attention"):
        SinkRates(length=9).stimulus(model)


def test_making_the_samples_is_the_first_fifth_of_the_progress():
    shares: list[float] = []
    SinkRates(samples=3, length=20).run(tiny_model("llama"), progress=shares.append)
    made = [share for share in shares if share <= 0.2]
    assert len(made) == 3 and len(shares) > 3  # three kinds of text, then the layers
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_planted_sink_is_one_head_of_four_in_every_sample():
    result = SinkRates(samples=16).run(wrap(sinking_toy(), None, name="toy"))
    np.testing.assert_array_equal(result["sink_rate"], 0.25)
    np.testing.assert_allclose(result["sink_rate_low"], 0.25 * 0.05 ** (1 / 16))  # one unlike sixteen may be unseen
    np.testing.assert_array_equal(result["layer_sink_rate"].values, [[0, 0.5]] * 2)
    np.testing.assert_array_equal(result["head_sink_rate"].values[0], [[0, 0], [1, 0]])
    np.testing.assert_allclose(result["first_received"].values[0], [[0.0741, 0.0741], [1, 0.0741]], atol=5e-5)
    np.testing.assert_array_equal(result["sink_at"].values[:, 0], 0.25)
    np.testing.assert_array_equal(result["sink_at"].values[:, 1:48], 0)
    assert np.isnan(result["sink_at"].values[:, 48:]).all()  # fewer than 16 queries of other tokens


def test_rates_equal_a_plain_loop_over_kept_patterns():
    model = wrap(sinking_toy(), None, name="toy")
    params = {"samples": 3, "length": 24, "epsilon": 0.15}
    result = SinkRates(**params).run(model)
    stimulus = SinkRates(**params).stimulus(model)
    need = Need((PATTERN,), keep, dims="head query key")
    patterns = observe(model, stimulus.tokens, [need])[need].double()
    bar = 2 * sum(1 / i for i in range(1, 25)) / 24  # twice what uniform attention gives: 0.31, above epsilon
    for group, rows in enumerate((range(3), range(3, 6))):
        flags = []
        for row in rows:
            for layer in range(2):
                for head in range(2):
                    flags.append(sum(patterns[layer, row, head, i, 0] for i in range(24)) / 24 > bar)
        assert 0 < np.mean(flags) < 1
        np.testing.assert_allclose(result["sink_rate"].values[group], np.mean(flags))


def test_random_weights_do_not_sink():
    model = tiny_hf("gpt2")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "wte" not in name and "wpe" not in name:
                parameter.div_(5.0)  # as initialised
    result = SinkRates(samples=4).run(wrap(model, None, name="random"))
    assert result["sink_rate"].values.max() == 0


def test_layers_with_a_sliding_window_enter_no_mean():
    result = SinkRates(samples=2, length=32).run(tiny_model("gemma3"))
    assert np.isnan(result["layer_sink_rate"].values[:, 0]).all()
    np.testing.assert_allclose(result["sink_rate"], result["layer_sink_rate"].values[:, 1])
    assert "1 layer left out: where a window is shorter" in result.attrs["summary"]


def test_where_every_window_is_shorter_no_rate_is_said():
    """It said nan% of every condition."""
    summary = SinkRates(samples=2, length=32).run(tiny_model("mistral")).attrs["summary"]
    assert summary.startswith("Of no layer it is told how many heads sink") and "%" not in summary


def test_natural_text_that_is_nowhere_as_long_is_missed_aloud(monkeypatch):
    """2,048 tokens of prose on the default model: the rates were of random tokens, and 'no text was too short'."""
    short = {"prose": Corpus("few", (Document("a", "a cat " * 9), Document("b", "a dog " * 5)))}
    monkeypatch.setattr(samples, "python_domains", lambda: short)
    model = wrap(tiny_hf("llama"), spelling(), name="words")
    result = SinkRates(samples=2, length=60).run(model)
    assert result["group"].values.tolist() == list(CONDITIONS[2:])
    said = "No text of prose has 60 tokens: natural text is left out."
    assert result.attrs["skipped"] == said and result.attrs["summary"].endswith(f"repeated token. {said}")
    some = SinkRates(samples=2, length=40).run(model).attrs
    assert "1 texts shorter than 40 tokens were skipped: b" in some["skipped"] and "left out" not in some["summary"]


def test_every_figure_states_T_epsilon_and_the_BOS_convention():
    result = SinkRates(samples=2, length=32, epsilon=0.4).run(tiny_model("llama"))
    for figure in (figure(result) for figure in VIEW.figures):
        title = figure.layout.title.text.replace("<br>", " ")
        assert "T = 32" in title and "BOS" in title and "epsilon = 0.4" in title, title


def test_on_the_default_model_BOS_keeps_the_sink_of_repeated_tokens(default_model):
    """SmolLM2-135M-Instruct, 4 samples: repeated tokens 0.62 after BOS and 0.00 without, random ones 0.64 and 0.81."""
    result = SinkRates(samples=3).run(default_model)
    rate = dict(zip(result["group"].values, result["sink_rate"].values, strict=True))
    assert rate["repeated token"] < 0.01
    assert rate["repeated token after BOS"] == pytest.approx(0.60, abs=0.05)
    assert rate["random tokens after BOS"] == pytest.approx(0.63, abs=0.08)
    assert rate["random tokens"] == pytest.approx(0.81, abs=0.05)
    assert 0.5 < rate["natural text after BOS"] < 0.95
    assert result["n_samples"].values.tolist() == [3] * 6
