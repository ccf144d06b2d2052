"""Entries, parameters, and running several analyses from one pass."""

import pytest
import torch

from tests.tiny_models import tiny_model
from workbench import PATTERN, Entry, InputError, LegacyCatalog, Need, Param, Prompt, RefusedError, dataset, run
from workbench.models.selfcheck import ROWS, Item, SelfCheck

IDS = Prompt.ids([5, 9, 17, 33])


def largest(pattern, site, power=1.0):
    """Largest weight of each head, to a power."""
    return pattern.amax((2, 3)) ** power


def needs(model, tokens, *, power):
    return (Need((PATTERN,), largest, dims="head", params={"power": power}),)


def analyse(observation, readout, *, power):
    values = observation[needs(None, None, power=power)[0]][:, 0]
    return dataset(observation, largest=("layer head", values, "share", (0, 1)))


ENTRY = Entry(
    name="largest",
    title="Largest weight",
    source="ours",
    limits="a test",
    needs=needs,
    analyse=analyse,
    params=(Param("power", float, 1.0, "exponent", low=0, high=4),),
    requires=(ROWS,),
)


def test_run_returns_a_stamped_result():
    result = ENTRY.run(tiny_model("llama"), IDS, power=2)
    assert result.attrs["title"] == "Largest weight" and len(result.attrs["spec_key"]) == 64
    assert result.attrs["spec_key"] != ENTRY.run(tiny_model("llama"), IDS).attrs["spec_key"]


def test_entries_share_one_pass():
    model, passes = tiny_model("llama"), []
    handle = model.adapter.bridge.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    other = Entry(name="other", title="O", source="", limits="", needs=needs, analyse=analyse, params=ENTRY.params)
    results = run([ENTRY, other], model, IDS, {"other": {"power": 3.0}})
    handle.remove()
    assert len(passes) == 1 and list(results) == ["largest", "other"]
    torch.testing.assert_close(
        torch.tensor(results["other"]["largest"].values), torch.tensor(results["largest"]["largest"].values) ** 3
    )


def test_bad_parameters_and_prompts():
    model = tiny_model("llama")
    with pytest.raises(InputError, match="'powre'"):
        ENTRY.run(model, IDS, powre=1)
    with pytest.raises(InputError, match="range 0 to 4"):
        ENTRY.run(model, IDS, power=9.0)
    with pytest.raises(InputError, match="without a prompt"):
        ENTRY.run(model)
    with pytest.raises(InputError, match="scope"):
        Entry(name="x", title="", source="", limits="", scope="nowhere")
    with pytest.raises(InputError, match="without needs"):
        Entry(name="x", title="", source="", limits="")


def test_an_analysis_refuses_where_its_assumption_failed():
    model = tiny_model("llama")
    model.selfcheck = SelfCheck((Item(ROWS, 0.3, 1e-5, False),))
    with pytest.raises(RefusedError, match=r"attention rows sum to 1.*0\.3"):
        ENTRY.run(model, IDS)


@pytest.mark.parametrize(
    ("param", "text", "value"),
    [
        (Param("n", int, 1), "3", 3),
        (Param("x", float, 1.0), "0.5", 0.5),
        (Param("b", bool, True), "false", False),
        (Param("t", str, None, optional=True), "none", None),
        (Param("t", str, None, optional=True), " Paris", " Paris"),
    ],
)
def test_parameters_read_text(param, text, value):
    assert param.parse(text) == value


@pytest.mark.parametrize(
    ("param", "text"),
    [
        (Param("n", int, 1), "3.5"),
        (Param("n", int, 1, low=0), "-1"),
        (Param("x", float, 1.0, low=0), "nan"),
        (Param("b", bool, True), "maybe"),
        (Param("c", str, "a", choices=("a", "b")), "c"),
    ],
)
def test_parameters_refuse(param, text):
    with pytest.raises(InputError, match=param.name):
        param.parse(text)


def test_a_catalog_imports_an_entry_only_when_looked_at():
    catalog = LegacyCatalog({"largest": f"{__name__}:ENTRY", "broken": "no.such.module:ENTRY"})
    assert catalog.names == ("largest", "broken") and len(catalog) == 2
    assert catalog.get("largest").name == "largest"
    with pytest.raises(ModuleNotFoundError):
        catalog.get("broken")
    with pytest.raises(InputError, match="largest"):
        catalog.get("larges")
