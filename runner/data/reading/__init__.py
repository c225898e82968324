"""Rows of files in any format."""
