"""Runnable examples. `python -m samples.orders` is the one to begin with."""
