"""What answers and models are worth: measures, how sure they are, where each figure is found."""
