"""What a probe must learn from data first: linear readouts, each with a card that says how good it is.

`train` makes them, `find` gives those of a model from the user's cache, `load_probes` reads a file, `cli` is the
command `workbench train erasure-probes`. A file made on other weights is refused by its hash.
"""

from probes.trained.artifact import ReadoutProbes, default_path, find, load_probes, save_probes
from probes.trained.command import add_arguments, cli
from probes.trained.training import RECIPE, Recipe, train

__all__ = [
    "RECIPE",
    "ReadoutProbes",
    "Recipe",
    "add_arguments",
    "cli",
    "default_path",
    "find",
    "load_probes",
    "save_probes",
    "train",
]
