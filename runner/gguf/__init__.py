"""Whole models as GGUF files, the form of llama.cpp and of what is built on it."""
