"""When does alignment of feedback with the attempt matter? A task with many derivations."""
