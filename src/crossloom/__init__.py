"""Crossloom weaves neural networks onto compute-in-memory crossbars."""
