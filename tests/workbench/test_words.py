"""Numbers in sentences."""

import pytest

from workbench.words import counted


@pytest.mark.parametrize("n, said", [(0, "0 prompts"), (1, "1 prompt"), (2, "2 prompts"), (2219, "2,219 prompts")])
def test_one_of_them_is_one(n, said):
    assert counted(n, "prompt") == said
