"""The catalogue: mistakes that people make when they port recurrent layers, as functions Case -> wrong Cases.

One list serves the diagnosis of a FAIL (which wrong Case does the candidate satisfy?), the adequacy of a PASS (which
wrong Cases would have passed too?) and the harness's own score. To add a mistake is to enter it in its family's file,
where its wrong layers stand.
"""

from parity.mistakes import activations, cells, far_out, gates, masks, models, precision, states, time, weights
from parity.mistakes.entry import Family, Mistake

FAMILIES: tuple[Family, ...] = tuple(
    family.FAMILY for family in (weights, gates, activations, cells, far_out, time, states, masks, precision, models)
)
"""In the order in which causes are looked for and named."""

MISTAKES: dict[str, Mistake] = {mistake.id: mistake for family in FAMILIES for mistake in family.mistakes}
