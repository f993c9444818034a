"""Move files in the background, and survive restarts."""

__version__ = "0.1.0"
