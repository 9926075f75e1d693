"""Flattone: a real-time media proxy that keeps keyed card numbers from agents and recordings."""

__version__ = "0.1.0"
