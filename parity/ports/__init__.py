"""Ports: a layer or model written as the other side loads it."""
