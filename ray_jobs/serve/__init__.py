"""A model that answers: over HTTP as OpenAI's API does, on one machine or on Ray Serve, and in a terminal."""
