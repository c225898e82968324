"""The memory that a model will take, told from its configuration before any weight is there."""
