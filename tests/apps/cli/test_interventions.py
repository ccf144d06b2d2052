"""`--intervene`: the same numbers as interventions by hand, in every pass, studies too."""

import json

import pytest

from apps.cli import main
from probes import CATALOG
from workbench import Ablate, Head, Knockout, load, measure_means, open_result
from workbench.intervene.text import MEAN_HOOKS

IDS = [5, 9, 13, 5, 9]


def by_hand(model, how):
    """Interventions as a user of the library writes them."""
    if how == "L1H0":
        return [Ablate(Head(1, 0))]
    if how == "L1H0 mean":
        return [Ablate(Head(1, 0), "mean", measure_means(model, hooks=MEAN_HOOKS))]
    return [Knockout((4,), (1,), tuple(range(model.sizes.n_layers)))]


@pytest.mark.parametrize("how", ["L1H0", "L1H0 mean", "4 cannot see 1"])
@pytest.mark.parametrize("name", ["logit-lens", "activation-patching"])
def test_an_intervention_reaches_the_pass_and_every_pass_of_a_study(tmp_path, capsys, name, how):
    words = ["run", name, "--model", "toy-induction", "--ids", *map(str, IDS)]
    for file, more in (("plain", []), ("changed", ["--intervene", how])):
        assert main([*words, *more, "--out", str(tmp_path / f"{file}.nc")]) == 0
    assert "\nWith " in capsys.readouterr().out
    plain, changed = (open_result(tmp_path / f"{file}.nc") for file in ("plain", "changed"))
    model = load("toy-induction")
    expected = CATALOG.view(name).analysis().run(model, IDS, interventions=by_hand(model, how))
    for variable in expected.data_vars:
        assert changed[variable].equals(expected[variable]), variable
    assert not all(changed[variable].equals(plain[variable]) for variable in plain.data_vars)
    assert changed.attrs["spec_key"] == expected.attrs["spec_key"] != plain.attrs["spec_key"]
    assert json.loads(changed.attrs["provenance"])["interventions"] != []


def test_the_order_and_repetition_of_interventions_do_not_matter(tmp_path, capsys):
    keys = set()
    for given in (["L1H0", "L0H1"], ["L0H1", "L1H0", "L0H1"]):
        words = [word for one in given for word in ("--intervene", one)]
        out = str(tmp_path / "lens.nc")
        assert main(["run", "logit-lens", "--model", "toy-induction", "--ids", "5,9,13", *words, "--out", out]) == 0
        keys.add(open_result(out).attrs["spec_key"])
    assert len(keys) == 1


def test_what_stands_on_the_unedited_model_refuses_in_a_sentence(refused):
    refusing = [view.name for view in CATALOG.views if not view.analysis.editable]
    for name in refusing:
        words = ["run", name, "--model", "toy-induction", "--ids", "5,9,13", "--intervene", "L1H0"]
        assert main(words) in (1, 2)
