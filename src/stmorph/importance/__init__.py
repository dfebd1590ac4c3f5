"""Which genes a model's pictures depend on."""
