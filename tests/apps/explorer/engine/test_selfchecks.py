"""The self-check of a model that the page offers: kept, dated, and made again where the server was started so."""

from apps.explorer.engine.hosted import loader
from apps.explorer.engine.settings import Settings
from apps.explorer.page.components import model_line
from workbench.loading import pretrained


def test_the_page_says_when_and_checks_again_when_it_was_started_so(tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    made, plain = [], pretrained.selfcheck
    monkeypatch.setattr(pretrained, "selfcheck", lambda *given: made.append(1) or plain(*given))
    for check in (False, False, True):
        model = loader(Settings((str(tiny_dir),), check=check))(str(tiny_dir), lambda *_: None)
        assert model.selfcheck.measured.startswith("measured 20")
        assert model.selfcheck.measured in str(model_line(model))
    assert len(made) == 2
