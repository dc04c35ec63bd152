"""Estimate memory, arithmetic and time of a step before anything is loaded or rented."""
