"""A prompt counts once in its group, for each analysis that asks the same of it."""

import numpy as np

from probes import CATALOG, Surprisal
from tests.tiny_models import spelling, tiny_hf
from workbench import batch, wrap


def test_rows_that_differ_only_in_a_column_that_is_not_read_count_once(tmp_path):
    """One text beside twenty targets weighed twenty times, and had an interval over twenty documents of one value."""
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")
    rows = [("to be", letter) for letter in "abcdefghijklmnopqrst"] + [("or not", "x"), ("to see", "y")]
    lines = "".join(f"{text},{target}\n" for text, target in rows)
    (tmp_path / "a.csv").write_text(f"text,next\n{lines}", encoding="utf-8")
    lens = {"name": "logit-lens", "columns": {"target": "next"}, "positions": "last"}
    given = {
        "name": "made",
        "models": [{"name": "tiny"}],
        "prompts": [{"file": str(tmp_path / "a.csv")}],
        "analyses": [{"name": "surprisal", "positions": "mean"}, lens],
    }
    found = batch.run(given, tmp_path / "run", catalog=CATALOG, models={"tiny": model})
    once, each = found.aggregate("surprisal"), found.aggregate("logit-lens")
    values = [float(Surprisal().run(model, text)["surprisal"].mean()) for text in ("to be", "or not", "to see")]
    np.testing.assert_allclose(once["surprisal"].item(), np.mean(values), rtol=1e-6)
    assert once["n_prompts"].item() == once["n_documents"].item() == 3 and once["surprisal_low"].isnull().all()
    assert found.summaries["surprisal"] == "Results of surprisal over 3 prompts."
    assert each["n_prompts"].item() == 22 and len(found.table()) == 22
