"""Keras there and back; the only folder that imports it.

Keras keeps `kernel` (input_dim, gates * units) and `recurrent_kernel` (units, gates * units), one column a unit and
gate; rnn_scratch keeps one row: both are transposed on the way, in the kind files (`parity.kinds`). Keras's layers are
known by their exact class in Keras 3 or `tf_keras`, not by `isinstance`: a subclass may compute anything.
"""
