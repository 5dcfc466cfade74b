"""Outputs that were computed elsewhere as a candidate: it can be asked nothing else."""

from collections.abc import Mapping
from typing import Any

from parity.candidates.answer import Answer, as_outputs
from parity.cases.case import ANY, Case
from parity.errors import CandidateError


class Outputs:
    """Outputs for the user's own inputs; or, by the ids of cases, for those."""

    callable = False
    fixed = ANY
    takes = frozenset({"mask", "initial_state"})

    def __init__(self, value: Any) -> None:
        self.by_case = {name: as_outputs(own) for name, own in value.items()} if isinstance(value, Mapping) else {}
        self.outputs = () if isinstance(value, Mapping) else as_outputs(value)

    @property
    def single(self) -> bool:
        """Whether there is one array alone, without states, for each case."""
        every = self.by_case.values() if self.by_case else (self.outputs,)
        return all(len(outputs) == 1 for outputs in every)

    def ask(self, case: Case) -> Answer:
        if not self.by_case:
            return Answer(self.outputs, partial=True)
        if case.id not in self.by_case:
            known = ", ".join(self.by_case)
            raise CandidateError(f"--outputs: expected those of {case.id}; there are some of {known}")
        return Answer(self.by_case[case.id], partial=True)

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("outputs of one call")
