"""Keras there and back; the only folder that imports it."""
