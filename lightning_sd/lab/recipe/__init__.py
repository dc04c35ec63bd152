"""The recipe of the embedded solver: ``python -m lightning_sd.lab.recipe --out DIR``."""
