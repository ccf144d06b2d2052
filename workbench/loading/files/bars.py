"""Progress of transformers while it reads and writes weights, in our own words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["bars"]

Progress = Callable[[str, float, str], None]


@contextmanager
def bars(report: Progress) -> Iterator[None]:
    """Send the progress bars of transformers to `report` for as long as the block runs, and keep its warnings quiet.

    The GGUF reader uses tqdm by name, the rest goes through a hook of transformers. report: `(stage, done, text)`.
    """
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging

    reader: Any = modeling_gguf_pytorch_utils

    def bar(items: Any, desc: str = "", **_: Any) -> Iterator[Any]:
        start, end = {"Loading weights": (0.75, 0.8), "Writing model shards": (0.9, 0.99)}.get(desc, (0.6, 0.75))
        for number, item in enumerate(items):
            text = f"{desc.rstrip('.')}: {number} of {len(items)}"
            report("convert", start + (end - start) * number / len(items), text)
            yield item

    tqdm, verbosity = reader.tqdm, logging.get_verbosity()
    hook = logging.set_tqdm_hook(lambda factory, args, kwargs: bar(*args, **kwargs))
    reader.tqdm = bar
    logging.set_verbosity_error()
    try:
        yield
    finally:
        reader.tqdm = tqdm
        logging.set_tqdm_hook(hook)
        logging.set_verbosity(verbosity)
