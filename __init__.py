"""lcpu: an LLM engine for CPUs."""

__version__ = "0.1.0"
