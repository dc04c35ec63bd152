"""Critics: a rule, a language model, a server, a vLLM engine."""
