"""Candidates that compute whatever they are told to, and what the check asks of them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from parity.candidates.answer import Answer, Candidate
from parity.cases.beside import companions, two_calls
from parity.cases.case import ANY, Case
from parity.cases.probes import probes
from parity.checking.asking import again
from parity.errors import CandidateError
from parity.explaining.functions import computed
from parity.judging.findings import Finding
from parity.judging.judge import examine, judge_answer
from parity.judging.query import Asker
from parity.judging.tally import Tolerance
from parity.mistakes.wrong_cases import Key, WrongCases
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

ALL = frozenset({"layer", "mask", "initial_state"})


class Function:
    """A candidate that computes a case by some function of it."""

    callable = True
    fixed = ANY

    def __init__(self, function: Callable[[Case], Sequence[Array]], takes: frozenset[str] = ALL) -> None:
        self.function, self.takes = function, takes

    def ask(self, case: Case) -> Answer:
        return Answer(tuple(np.asarray(y) for y in self.function(case)))

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("it keeps no state")


class Wrong(Function):
    """A port that made these mistakes and no other."""

    def __init__(self, key: Sequence[Key], takes: frozenset[str] = ALL) -> None:
        self.key, self.takes = key, takes

    def ask(self, case: Case) -> Answer:
        return Answer(computed(self.wrong(case))[0])

    def wrong(self, case: Case) -> Case:
        return WrongCases(case).composed(self.key) or case

    def converse(self, case: Case) -> list[Answer]:
        wrong = WrongCases(case).composed(self.key)
        if wrong is None and not case.layer.stateful:
            return [self.ask(case.call(n)) for n in range(case.calls)]
        return [Answer(results) for results in computed(wrong or case)]


def questions(case: Case, takes: frozenset[str], thorough: bool = False) -> Iterator[Case]:
    """What the check asks for a case of the grid, the cheap questions first; for a user's own case, more."""
    yield from probes(case, takes, 0)
    if thorough:
        yield from companions(case, takes, 0)
    if case.layer.stateful:
        yield two_calls(case, 0)
    yield case
    if not case.layer.stateful:
        yield again(case)


def put(candidate: Candidate, question: Case) -> Finding | None:
    """What is found, None where the candidate cannot be asked that."""
    try:
        if question.calls > 1 or question.rows or not isinstance(question.layer, Recurrent):
            return examine(candidate, question, Tolerance())
        return judge_answer(question, candidate.ask(question), Tolerance(), asker=Asker(candidate, question))
    except CandidateError:
        return None


def findings(candidate: Candidate, case: Case) -> list[Finding]:
    """Of a user's own case."""
    every = (put(candidate, question) for question in questions(case, candidate.takes, thorough=True))
    return [found for found in every if found is not None]


def caught(candidate: Candidate, case: Case) -> bool:
    for question in questions(case, candidate.takes):
        found = put(candidate, question)
        if found is not None and found.verdict == "FAIL":
            return True
    return False
