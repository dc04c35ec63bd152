"""Rollout engines compared: throughput, and where a recipe ends."""
