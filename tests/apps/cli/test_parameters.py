"""Parameters of analyses, as options and as --param."""

import argparse

import pytest

from apps.cli.commands import run
from apps.cli.parameters import add_parameters, asked, option
from apps.cli.parser import Parser
from probes import CATALOG
from workbench.errors import InputError


def test_params_become_what_the_fields_declare():
    (one,) = asked([CATALOG.view("logit-lens")], ["top-k=3", "normalise=no", "target= Paris"])
    assert one.analysis == one.view.analysis(top_k=3, normalise=False, target=" Paris")
    with pytest.raises(InputError):
        asked([CATALOG.view("logit-lens")], ["normalise=maybe"])


def test_display_params_are_split_off_and_a_finer_result_is_said(capsys):
    view = CATALOG.view("flow-routes")
    (one,) = asked([view], ["threshold=0.0005", "start=3", "p=2"])
    assert (one.analysis.min_share, one.analysis.min_coverage, one.analysis.p) == (0.0005, 0.95, 2)
    assert one.display.threshold == 0.0005 and one.display.start == 3 and not one.display.hide_first
    assert capsys.readouterr().err.startswith("Note: min_share=0.0005")
    assert asked([view], ["coverage=0.5"])[0].analysis == view.analysis() and not capsys.readouterr().err
    with pytest.raises(InputError, match="coverage=2"):
        asked([view], ["coverage=2"])


def parsed(*words: str) -> list[str]:
    """What the options of analyses come to, as --param would say it."""
    parser = Parser()
    parser.add_argument("--param", action="append", default=[])
    names = [word for word in words if not word.startswith("-")]
    add_parameters(parser, [CATALOG.view(name) for name in CATALOG.names if name in names])
    return parser.parse_known_args([word for word in words if word not in CATALOG.names])[0].param


def test_each_parameter_is_an_option():
    assert parsed("attention-knockout", "--window", "5", "--subject=France", "--query", "-1") == [
        "window=5", "subject=France", "query=-1",
    ]  # fmt: skip
    assert parsed("logit-lens", "--include-mid", "--no-normalise", "--param", "top_k=3") == [
        "include-mid=true", "normalise=false", "top_k=3",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"--windw.*--window"):
        parsed("attention-knockout", "--windw", "5")


def test_no_parameter_has_the_name_of_an_option_of_the_command():
    """Such a one could be given with --param only, which its description would have to say."""
    for view in CATALOG.views:
        parser = Parser(add_help=False)
        run.arguments(parser)
        for parameter in (*view.analysis.parameters(), *view.display_parameters):
            parser.add_argument(option(parameter))  # argparse refuses a name that is taken
    with pytest.raises(argparse.ArgumentError):
        parser.add_argument("--prompt")


def test_a_parameter_reaches_every_analysis_that_has_it_or_the_one_that_is_named(capsys):
    views = [CATALOG.view("causal-tracing"), CATALOG.view("attention-knockout"), CATALOG.view("logit-lens")]
    tracing, knockout, lens = asked(views, ["subject=France", "causal-tracing.window=3", "attention-knockout.window=7"])
    assert tracing.analysis.subject == knockout.analysis.subject == "France"
    assert (tracing.analysis.window, knockout.analysis.window) == (3, 7)
    assert lens.analysis == lens.view.analysis()
    for wrong, said in (("k=3", "top_k"), ("sinks.window=3", "logit-lens"), ("logit-lens.window=3", "top_k")):
        with pytest.raises(InputError, match=said):
            asked(views, [wrong])
    with pytest.raises(InputError, match="twice"):
        asked(views, ["window=3", "attention-knockout.window=7"])
