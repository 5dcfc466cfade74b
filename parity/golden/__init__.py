"""Golden files: cases with Keras's outputs, on disk, for checks that need no Keras."""
