"""Memory of each phase of a step: measured per rank, and predicted by a plan."""
