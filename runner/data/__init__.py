"""What becomes of rows on their way to training: read, cleaned, masked and packed."""
