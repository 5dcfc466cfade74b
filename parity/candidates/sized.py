"""A candidate that is asked for one number of timesteps, or for so many rows at a time, and for nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.candidates.answer import Answer, Candidate
from parity.cases.case import Case, Fixed
from parity.errors import CandidateError
from rnn_scratch.base import Array


@dataclass(frozen=True)
class Size:
    """The only one that is asked. why: who says so."""

    number: int
    why: str


Sizes = Mapping[str, Size]
"""By "timesteps" and "batch", those that are not open."""


def fixed_by(sizes: Sizes) -> Fixed:
    numbers = {name: size.number for name, size in sizes.items()}
    return numbers.get("batch"), numbers.get("timesteps")


class Sized:
    """A candidate within those sizes: a larger or smaller batch is divided, another length is refused."""

    def __init__(self, inner: Candidate, sizes: Sizes) -> None:
        self.inner, self.sizes = inner, sizes
        self.takes, self.callable = inner.takes, inner.callable
        batch, timesteps = fixed_by(sizes)
        self.fixed = (batch or inner.fixed[0], timesteps or inner.fixed[1])

    def ask(self, case: Case) -> Answer:
        self._expect_length(case)
        return in_groups(self.inner.ask, case, self._rows(case))

    def converse(self, case: Case) -> list[Answer]:
        self._expect_length(case)
        size = self._rows(case)
        parts = [self.inner.converse(part) for part in _parts(case, size)]
        return [joined(answers, case.batch, size) for answers in zip(*parts, strict=True)]

    def _rows(self, case: Case) -> int:
        size = self.sizes.get("batch")
        return size.number if size else case.batch

    def _expect_length(self, case: Case) -> None:
        size, steps = self.sizes.get("timesteps"), case.timesteps // case.calls
        if size and size.number != steps:
            raise CandidateError(f"{steps} timesteps: only {size.number} are asked: {size.why}")


def sized(candidate: Candidate, sizes: Sizes) -> Candidate:
    """The candidate itself, where every size is open or it can be asked nothing anyhow."""
    return Sized(candidate, sizes) if sizes and candidate.callable else candidate


def within(candidate: Candidate) -> Candidate:
    """What was made into one of those sizes, if it was."""
    return candidate.inner if isinstance(candidate, Sized) else candidate


# --- so many rows at a time ---


def in_groups(ask: Callable[[Case], Answer], case: Case, size: int) -> Answer:
    """The answer to the whole batch, so many rows at a time."""
    return joined([ask(part) for part in _parts(case, size)], case.batch, size)


def _parts(case: Case, size: int) -> Iterator[Case]:
    """So many rows each. Those past the end stand for the last one."""
    if size == case.batch:
        yield case
        return
    for start in range(0, case.batch, size):
        yield case.rows_at(np.minimum(np.arange(start, start + size), case.batch - 1))


def joined(answers: Sequence[Answer], batch: int, size: int) -> Answer:
    """The answers to so many rows each as one, up to the last row of the batch."""
    if size == batch:
        return answers[0]
    try:
        return _joined(answers, batch, size)
    except (KeyError, ValueError) as error:
        raise CandidateError(f"candidate: its answers to {size} rows at a time are not alike: {error}") from None


def _joined(answers: Sequence[Answer], batch: int, size: int) -> Answer:
    outputs = [_whole(arrays, batch, size) for arrays in zip(*map(_outputs, answers), strict=True)]
    sequences = [answer.sequence for answer in answers if answer.sequence is not None]
    return replace(
        answers[0],
        outputs=None if answers[0].outputs is None else tuple(outputs),
        sequence=_whole(sequences, batch, size) if sequences else None,
        layers=_named([answer.layers for answer in answers], batch, size),
        sequences=_named([answer.sequences for answer in answers], batch, size),
        notes=tuple(dict.fromkeys(note for answer in answers for note in answer.notes)),
    )


def _outputs(answer: Answer) -> Sequence[Array]:
    return answer.outputs or ()


def _whole(arrays: Sequence[Array], batch: int, size: int) -> Array:
    # of another shape they are left as they are, and told so
    there = all(array.ndim and len(array) == size for array in arrays)
    return np.concatenate(arrays)[:batch] if there else arrays[0]


def _named(each: Sequence[Mapping[str, Array]], batch: int, size: int) -> dict[str, Array]:
    return {name: _whole([arrays[name] for arrays in each], batch, size) for name in each[0]}
