"""Declarative, resumable and repeatable pipelines for Hugging Face models."""

__version__ = "0.1.0"
