"""What rows must be like, and how they are cleaned."""
