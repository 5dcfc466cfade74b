"""Candidates: whatever is to be judged, made to answer Cases."""
