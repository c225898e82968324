"""A model as others use it: written, opened again to be sure, described, and pushed."""
