"""How a model is taught: what is trained, on which objective, and the loop around it."""
