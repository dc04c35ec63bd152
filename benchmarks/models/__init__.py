"""Which causal families of transformers are sampled and scored exactly."""
