"""What a model does, measured: keys and values, ways of decoding, forms of prompts."""
