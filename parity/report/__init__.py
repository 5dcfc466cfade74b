"""Reports: frozen data, what they say, and the forms in which they are read."""
