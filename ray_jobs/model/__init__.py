"""Models: transformers' own classes built from a ModelSpec, their initial weights, loss, size, and files."""
