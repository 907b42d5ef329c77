"""Evaluation: what a model remembers, knows and says, as one sheet."""
