"""How a model comes into memory: what a folder holds, attention, adapters, code of its own."""
