"""Evaluation: what a model is worth on text that it was not trained on."""
