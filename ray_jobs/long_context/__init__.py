"""Long context: how a model does on texts longer than it was trained on."""
