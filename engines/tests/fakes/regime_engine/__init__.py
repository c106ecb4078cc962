"""A small package with the Regime Engine's public names, to test the adapter where the real one is not installed."""

__version__ = "0.0-fake"
