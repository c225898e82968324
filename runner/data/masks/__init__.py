"""Tokens and labels: exactly what was meant is trained."""
