"""Hearth: a self-hosted, OpenAI-compatible inference server for one machine."""

__version__ = "0.1.0"
