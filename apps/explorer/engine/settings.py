"""What an explorer is started with."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How one explorer is set up; nothing in here can be changed from the browser.

    models: names that the page offers, the first one is loaded at start. token: what a browser must show once; "" lets
    everyone in. base_path: where a browser finds the page; begins and ends with a slash. mounted: its end, which the
    server itself answers at: a proxy may cut off what stands before, or leave it; another than "/" is a secret, which a
    page in a frame shows in place of a token. hosts: further host names under which the page may be asked for (behind a
    proxy). memory: bytes of results kept in memory; disk: bytes kept between restarts in `directory` (None: nothing is
    written). budget: bytes that one run may keep before it is refused. dtype, device: of the models, as `load()` takes
    them, the dtype by its name. any_model: whether the browser may name a model that is not in `models`; any_file:
    whether it may name files and folders of texts. check: whether models that passed their self-check before are
    checked again. held: whether who started it holds the model, which no name loads. runs: the folder of experiment
    batches that the page shows.
    """

    models: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8050
    token: str = ""
    base_path: str = "/"
    mounted: str = "/"
    hosts: tuple[str, ...] = ()
    directory: Path | None = None
    memory: int = 1 << 30
    disk: int = 4 << 30
    budget: int = 2 << 30
    dtype: str = "float32"
    device: str = "auto"
    any_model: bool = False
    any_file: bool = False
    allow_network: bool = False
    check: bool = False
    held: bool = False
    runs: Path | None = None
    threads: int = 16
    longest_text: int = 200_000
    largest_request: int = 2 << 20
