"""Asking a candidate, and what is concluded of it."""
