"""qwharf: Qwen3 from weights to a running, proven local deployment."""

__version__ = "0.1.0"
