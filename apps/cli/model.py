"""Loading the model that a command asks for. Imported when a model is to be loaded: what loads it takes long."""

import argparse

import torch
from transformers.utils import logging

from apps.cli.progress import Progress
from workbench.loading import pretrained
from workbench.models.model import Model

__all__ = ["load"]


def load(arguments: argparse.Namespace, report: Progress) -> Model:
    """The model of `options.add_model` or `options.add_loading`."""
    logging.disable_progress_bar()  # ours tells the same
    return pretrained.load(
        arguments.model,
        dtype=getattr(torch, arguments.dtype),
        device=arguments.device,
        revision=arguments.revision,
        allow_network=arguments.allow_network,
        check=arguments.check,
        progress=report,
    )
