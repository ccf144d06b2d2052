"""An explorer on a toy whose one analysis takes as long as SLOW_SECONDS says; killed in mid-job by a test."""

import os
import sys
import time

from apps.explorer import serve
from tests.tiny_analyses import tiny_view
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.results import dataset


def no_needs(self, model, tokens):
    return ()


def wait(self, observation):
    time.sleep(float(os.environ["SLOW_SECONDS"]))
    return dataset(observation, waited=("pos", [1.0] * len(observation.tokens[0]), "s", (0, None)))


def figure(result):
    from workbench.figures import token_strip

    return token_strip(result, "waited", title="Waited")


SLOW = tiny_view(OnPrompt, "slow", {"needs": no_needs, "analyse": wait}, figures=(figure,))

if __name__ == "__main__":
    from pathlib import Path

    serve(model="toy-induction", port=int(sys.argv[1]), token=False, catalog=[SLOW], directory=Path(sys.argv[2]))
