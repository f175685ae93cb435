"""Probing: a few steps of each cell on the target device, in a process of their own, instead of a prediction."""
