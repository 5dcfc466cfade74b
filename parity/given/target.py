"""What a candidate is checked against, with all that a report has to say of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from parity.candidates.answer import Candidate
from parity.candidates.sized import Sizes
from parity.cases.case import Case


@dataclass(frozen=True)
class Target:
    """A Keras layer, a saved model, a golden file or a case of the grid: `parity.given.making` makes one of each.

    Everything that Keras has to say is in here, or is asked of the oracle.

    oracle: whose answers are the expected ones. case: the first question. further: what else may be asked; None where
    that follows from the first question and from what the candidate takes. companions: whether other lengths, batches,
    masks and states follow too: the grid has cases of its own for those. notes: what is told of the target before all
    else. versions: of what computed the expected outputs. precision: the dtype policy of the Keras layer. unasked: why
    Keras is not asked and the reference stands in for it, if that is so. sizes: those of the timesteps and the batch
    that are all that is asked.
    """

    oracle: Candidate
    case: Case
    further: tuple[Case, ...] | None = None
    companions: bool = True
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    precision: str = ""
    unasked: str = ""
    sizes: Sizes = field(default_factory=dict)
