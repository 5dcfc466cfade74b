"""Reports: frozen data, and the forms in which it is read."""
