"""Judging: Case + Answer -> what was found. It knows neither Keras nor any cell in particular."""
