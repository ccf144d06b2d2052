"""A model that the explorer offers: its worker, and the model once it is loaded."""

import threading
from collections.abc import Callable

from apps.explorer.engine.jobs import LOAD, Job
from apps.explorer.engine.settings import Settings
from apps.explorer.engine.worker import Worker
from workbench.analysis.pace import Pace, measured_pace
from workbench.errors import RefusedError, UnavailableError
from workbench.intervene.text import MEAN_HOOKS
from workbench.models.model import Model
from workbench.observation.recording import Means, measure_means

__all__ = ["Hosted", "Load", "loader"]

Report = Callable[[str, float, str], None]  # stage, share done, what is being done
Load = Callable[[str, Report], Model]  # name, report -> model


class Hosted:
    """A model that the page offers: its worker, and the model once it is loaded."""

    def __init__(self, name: str, load: Load, boot: str = "") -> None:
        self.name, self.pace = name, Pace()
        self.model: Model | None = None
        self._means: Means | None = None
        self.worker = Worker(name, boot, self._admits_another).start()
        self.tokenising = threading.Lock()  # fast tokenizers must not be borrowed twice
        self.loading = self.worker.submit(Job(f"load {name}", f"load {name}", LOAD, lambda job: self._load(job, load)))

    def _load(self, job: Job, load: Load) -> str:
        def progress(stage: str, share: float, text: str) -> None:
            job.note = text or stage
            job.progress(share)

        model = load(self.name, progress)
        self.pace = measured_pace(model)
        self.model = model  # last: from here on it counts as ready
        return self.name

    def _admits_another(self) -> bool:
        """Whether a pass in the middle of what the worker's thread does now meets nothing of it.

        Rotations that depend on the length are the module's own, and another length would change them.
        """
        model = self.model
        return model is None or (model.passes.admits_another and not (model.is_held and model.adapter.by_length))

    def means(self) -> Means:
        """Means over the reference text, measured when an intervention first asks, and again for a model whose weights
        were changed since; for the worker's thread alone."""
        if self._means is None or self._means.model_key != self.ready.identity.key:
            self._means = measure_means(self.ready, hooks=MEAN_HOOKS)
        return self._means

    @property
    def ready(self) -> Model:
        """The model; UnavailableError while it is loading or where loading failed."""
        if self.model is not None:
            return self.model
        if self.loading.alive:
            raise UnavailableError(f"{self.name}, which is still loading", "a loaded model", "Wait a few seconds")
        raise UnavailableError(
            f"{self.name}, which did not load ({self.loading.error})", "a model", "Press Run to try again"
        )

    def of(self, weights: str) -> Model:
        """The model for one run of what asked for these weights (`Identity.key`); RefusedError where they were changed
        since: what is computed now would be kept under the keys of others."""
        model = self.ready.fixed()
        if model.made.key != weights:
            raise RefusedError(
                f"weights of {self.name} that were changed since this was asked for", "those that it was asked for",
                "Run the prompt again",
            )  # fmt: skip
        return model


def loader(settings: Settings) -> Load:
    """What loads the models of an explorer."""

    def load(name: str, progress: Report) -> Model:
        import torch

        from workbench.loading import pretrained

        return pretrained.load(
            name,
            dtype=getattr(torch, settings.dtype),
            device=settings.device,
            progress=progress,
            allow_network=settings.allow_network,
            check=settings.check,
        )

    return load
