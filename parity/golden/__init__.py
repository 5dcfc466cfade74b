"""Golden files: Cases with Keras's outputs, on disk."""
