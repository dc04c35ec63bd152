"""Critics: exact rules, a language model in this process, a server, a vLLM engine."""
