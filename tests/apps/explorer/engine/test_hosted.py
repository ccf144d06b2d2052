"""A model that the page offers, and what is kept of it."""

import torch

from apps.explorer.engine.hosted import Hosted
from tests.tiny_models import tiny_hf
from workbench.intervene.text import MEAN_HOOKS
from workbench.loading.pretrained import wrap
from workbench.observation.recording import measure_means


def test_means_are_measured_again_where_the_weights_were_changed():
    """A window on a model that a notebook holds, and trains on: no edit of a later pass writes means of an earlier."""
    hf = tiny_hf("qwen2")
    hosted = Hosted("held", lambda name, progress: wrap(hf, None, name=name))
    try:
        assert hosted.loading.finished.wait(60)
        before = hosted.means()
        assert hosted.means() is before
        with torch.no_grad():
            hf.model.layers[0].mlp.down_proj.weight.mul_(1.5)
        after, again = hosted.means(), measure_means(hosted.ready, hooks=MEAN_HOOKS)
        assert after.values.keys() == again.values.keys()
        assert all(torch.equal(after.values[site], again.values[site]) for site in again.values)
        assert any(not torch.equal(after.values[site], before.values[site]) for site in again.values)
    finally:
        hosted.worker.close()
