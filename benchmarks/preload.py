"""Imports that all runs of a grid share, with the classes that a configuration may name."""

import transformers.models.llama.modeling_llama  # noqa: F401

from lightning_sd.cli.main import load_public_classes

load_public_classes()
