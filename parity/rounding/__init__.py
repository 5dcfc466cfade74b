"""What rounding may do: arithmetics, balls, functions of balls, perturbed runs."""
