"""Writing text with a model: decoding and the memory of keys and values."""
