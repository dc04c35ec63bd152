"""Speed and memory of one training step: ours, TRL's, and what the machine itself allows."""
