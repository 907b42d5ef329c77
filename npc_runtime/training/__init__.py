"""Training: corpora and cards to a model, and a model to a Bundle."""
