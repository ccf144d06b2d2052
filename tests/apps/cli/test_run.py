"""`run` and `compare`: what they compute, save and print."""

import json

import pytest

from apps.cli import main
from probes import CATALOG
from workbench import load, open_result
from workbench.errors import UnavailableError


def test_run_saves_what_it_computed(tmp_path, capsys):
    out, figure = tmp_path / "new" / "lens.nc", tmp_path / "lens.html"
    words = ["--model", "toy-induction", "--ids", "5", "9", "13", "5", "--param", "top_k=3", "--param", "positions=all"]
    assert main(["run", "logit-lens", *words, "--out", str(out), "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    result = open_result(out)
    record = json.loads(result.attrs["provenance"])
    assert result["top_token"].shape == (3, 4, 3)
    assert record["token_ids"] == [5, 9, 13, 5] and record["params"]["top_k"] == 3
    assert str(out) in printed and str(figure) in printed
    assert "entropy" in printed and "nats" in printed and "toy-induction" in printed
    page = figure.read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot(") == 3 and "Limits:" in page
    assert 'src="http' not in page  # needs no network
    assert [path.name for path in tmp_path.rglob("*.part")] == []


TOY = ["--model", "toy-induction", "--ids", "5", "9", "13", "5"]


def test_parameters_are_options(tmp_path, capsys):
    words = ["--top-k", "3", "--no-normalise", *TOY, "--out", str(tmp_path / "lens.nc")]
    assert main(["run", "logit-lens", *words]) == 0
    params = json.loads(open_result(tmp_path / "lens.nc").attrs["provenance"])["params"]
    assert params["top_k"] == 3 and not params["normalise"] and not params["include_mid"]


def test_several_analyses_share_the_pass_of_the_prompt(tmp_path, capsys, monkeypatch):
    import workbench.analysis.run as runner

    passes = []
    plain = runner.observe
    monkeypatch.setattr(runner, "observe", lambda *given, **more: passes.append(given) or plain(*given, **more))
    names = ["logit-lens", "activation-patching", "attention-sinks"]
    assert main(["run", *names, *TOY, "--out", str(tmp_path), "--figure", str(tmp_path / "figures")]) == 0
    out = capsys.readouterr().out
    titles = [CATALOG.view(name).title for name in names]
    assert all(out.count(f"{title} of toy-induction") == 1 for title in titles)
    assert len(passes) == 1
    for name in names:
        result = open_result(tmp_path / f"{name}.nc")
        alone = CATALOG.view(name).analysis().run(load("toy-induction"), [5, 9, 13, 5])
        assert result.attrs["spec_key"] == alone.attrs["spec_key"]
        assert "Plotly.newPlot(" in (tmp_path / "figures" / f"{name}.html").read_text(encoding="utf-8")


def test_words_between_options_are_analyses_too(capsys):
    assert (
        main(["run", "logit-lens", "--model", "toy-induction", "--top-k", "3", "attention-sinks", "--ids", "5,9"]) == 0
    )
    out = capsys.readouterr().out
    assert "Logit lens of" in out and "Attention sinks" in out


def test_one_that_fails_costs_itself_alone(capsys, monkeypatch):
    def broken(self, observation):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(CATALOG.view("attention-sinks").analysis, "analyse", broken)
    names = ["attention-sinks", "logit-lens", "activation-patching"]
    assert main(["run", *names, *TOY, "--include-mid"]) == 1  # the toy has no state between attention and MLP
    out, err = capsys.readouterr()
    assert out.startswith("Activation patching of toy-induction") and out.count(" of toy-induction") == 1
    lines = err.splitlines()
    assert len(lines) == 2 and all(line.startswith("workbench: ") for line in lines)
    assert "attention-sinks: Attention sinks" in lines[0] and "ZeroDivisionError: of ours" in lines[0]
    assert lines[1].startswith("workbench: logit-lens: Got ")


def test_a_single_one_that_fails_keeps_the_code_of_its_error(refused, monkeypatch):
    def lacking(self, observation):
        raise UnavailableError("no probes", "trained ones", "Train them")

    assert "Set include_mid=False" in refused("run", "logit-lens", *TOY, "--include-mid")
    monkeypatch.setattr(CATALOG.view("attention-sinks").analysis, "analyse", lacking)
    assert "Train them" in refused("run", "attention-sinks", *TOY, code=1)


def test_a_figure_that_breaks_costs_no_other_analysis(tmp_path, capsys, monkeypatch):
    def broken(result):
        raise ZeroDivisionError("drawing")

    view = CATALOG.view("logit-lens")
    monkeypatch.setitem(vars(view), "figures", (broken,))
    words = ["run", "logit-lens", "attention-sinks", *TOY, "--out", str(tmp_path), "--figure", str(tmp_path)]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "drawing" in err and "Attention sinks" in out
    assert (tmp_path / "logit-lens.nc").exists() and (tmp_path / "attention-sinks.html").exists()


def test_a_prompt_that_nothing_uses_is_said(capsys):
    words = ["run", "induction-heads", "--n-sequences", "16", "--length", "32", *TOY]
    assert main(words) == 0
    assert capsys.readouterr().err == "Note: induction-heads makes its own stimulus; the prompt is not used.\n"


def test_whether_a_prompt_is_needed_goes_by_the_parameters(capsys):
    """A check on repeated tokens was refused without a prompt, and did not say that it makes no use of one."""
    words = ["run", "causal-check", "--model", "toy-induction", "--on", "repeated tokens", "--controls", "19"]
    assert main([*words, "--metric", "repetition"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "--metric", "repetition", "--ids", "1", "2", "3"]) == 0
    assert capsys.readouterr().err == "Note: causal-check makes its own stimulus; the prompt is not used.\n"


def test_no_write_permission_is_said_before_the_model_is_loaded(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("apps.cli.model.load", lambda *_: pytest.fail("loaded a model for nothing"))
    (tmp_path / "file").write_text("")
    for option in ("--out", "--figure"):
        words = ["run", "logit-lens", "--prompt", "x", option]
        assert "Not a directory" in refused(*words, str(tmp_path / "file" / "x.nc"))
        assert "a directory" in refused(*words, str(tmp_path))


def test_a_chat_file_that_is_not_one(refused, tmp_path):
    file = tmp_path / "chat.json"
    file.write_text("{")
    assert "not JSON" in refused("run", "logit-lens", "--chat", str(file))
    file.write_text('[{"role": "user"}]')
    assert "content" in refused("run", "logit-lens", "--chat", str(file))


def test_two_saved_results_are_compared(tmp_path, capsys):
    for name, ids in (("before", "3 7 9 3"), ("after", "3 7 9 9 3")):
        words = [
            "run",
            "logit-lens",
            "--model",
            "toy-induction",
            "--ids",
            *ids.split(),
            "--out",
            f"{tmp_path}/{name}.nc",
        ]
        assert main(words) == 0
    files = [f"{tmp_path}/{name}.nc" for name in ("before", "after", "change")]
    page = tmp_path / "change.html"
    assert main(["compare", *files[:2], "--out", files[2], "--figure", str(page)]) == 0
    assert "1 of 5 tokens has no counterpart" in capsys.readouterr().out.replace("\n", " ")
    change = open_result(files[2])
    assert change.sizes["pos"] == 5 and bool(change["entropy"].sel(pos=3).isnull().all())
    assert page.read_text(encoding="utf-8").count(
        "plotly-graph-div"
    ) == 3 and "Difference: Logit lens" in page.read_text(encoding="utf-8")
