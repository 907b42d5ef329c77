"""Grammars: makers of facts without end, whose answers can be found only by what was told, word for word."""
