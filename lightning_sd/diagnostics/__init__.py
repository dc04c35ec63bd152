"""Measure what a teacher context gives, without training: ``probe`` and ``analyze``."""
