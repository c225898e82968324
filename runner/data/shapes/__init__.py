"""What the columns of rows mean, and their one canonical form."""
