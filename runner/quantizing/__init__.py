"""Weights in few bits: how each form is made, resumed, and measured before it is believed."""
