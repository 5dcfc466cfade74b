"""The harness's own score."""
