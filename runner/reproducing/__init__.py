"""A run or a published model made again from nothing, and compared with what it was."""
