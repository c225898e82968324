"""Answers: what is asked, how each is drawn, what runs the model, and rows that are kept."""
