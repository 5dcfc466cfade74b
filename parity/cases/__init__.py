"""Cases: a layer, inputs, a mask, an initial state; the built-in grid, and what else a candidate is asked."""

from parity.cases.case import Case, View
from parity.cases.grid import grid

__all__ = ["Case", "View", "grid"]
