"""Diagnostics of a teacher context: ``probe`` before training, ``analyze`` token by token."""
