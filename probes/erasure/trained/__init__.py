"""What a probe must learn from data first: linear readouts, each with a card that says how good it is.

`train` makes them, `import_probes` takes up those of others, `find` gives those of a model from the user's cache,
`load_probes` reads a file, `cli` is the command `workbench train erasure-probes`. A file made on other weights is
refused by its hash.

Names are imported when first used: the command line reads the command's options without importing torch.
"""

from importlib import import_module

_HOMES = {
    "probes.erasure.trained.artifact": ("ReadoutProbes", "default_path", "find", "load_probes", "save_probes"),
    "probes.erasure.trained.command": ("add_arguments", "add_import_arguments", "cli", "import_cli", "summary"),
    "probes.erasure.trained.fit": ("Recipe",),
    "probes.erasure.trained.published": ("import_probes",),
    "probes.erasure.trained.trainer": ("RECIPE", "train"),
}
WHERE = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(WHERE)


def __getattr__(name: str):
    if name not in WHERE:
        raise AttributeError(f"module 'probes.erasure.trained' has no attribute {name!r}")
    return getattr(import_module(WHERE[name]), name)
