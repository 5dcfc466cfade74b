"""The catalogue's mistakes: every one in every case that it applies to. How many are caught, how many named?"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from parity.cases.beside import two_calls
from parity.cases.case import Case
from parity.checking.asking import again
from parity.explaining.causes import diagnose
from parity.explaining.functions import computed, widened
from parity.explaining.weights_in_effect import in_effect
from parity.judging.findings import Finding
from parity.judging.judge import judge_answer
from parity.judging.tally import Tolerance
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.wrong_cases import Key
from parity.report.data import Cause
from parity.scoring.asking import Function, Wrong, caught, findings
from parity.scoring.counts import Score
from parity.scoring.usual import baseline
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

_RADII = 10
"""A wrong case counts as another function on its data from so many radii."""

_DIAGNOSED = 2_000
"""Mistakes are diagnosed in cases of so many inputs at most."""


def mistakes(score: Score, cases: Sequence[Case], step: Callable[[str], None]) -> None:
    """Every mistake in every case that it applies to: caught, and named for the first few cases of each."""
    seen: Counter[tuple[str, ...]] = Counter()
    named: Counter[tuple[str, str]] = Counter()
    for case in cases:
        step(case.id)
        for key, wrong in variants(case):
            found, visible = _seen(score, case, key, wrong)
            if found or visible:
                seen[case.layer.kind, *key] += found
            which = case.layer.kind, str(key) if isinstance(case.layer, Recurrent) else key[0]
            if found and visible and case.size <= _DIAGNOSED and not named[which]:
                named[which] += 1
                _naming(score, key, case)
            baseline(score, case, wrong)
    _count_kinds(score, seen)


def _count_kinds(score: Score, seen: Mapping[tuple[str, ...], int]) -> None:
    """Whether some case sees a mistake at all, for each kind of layer and variant."""
    for what, number in seen.items():
        if not score.count("mistakes seen by some case of the grid, of all kinds of layer and variants", number > 0):
            score.missed.append(f"{' '.join(what)}: by no case")


def variants(case: Case) -> Iterator[tuple[Key, Case]]:
    """Every wrong case for a case of the grid, asked as it is or twice or in two calls."""
    twice = _in_two_calls(case)
    for mistake in MISTAKES.values():
        if not mistake.common:
            continue
        found = mistake.variants(case) or mistake.variants(twice)
        for label, wrong in found.items():
            yield (mistake.id, label), wrong


def _in_two_calls(case: Case) -> Case:
    return two_calls(case, 0) if case.layer.stateful else again(case)


def _seen(score: Score, case: Case, key: Key, wrong: Case) -> tuple[bool, bool]:
    """Whether the check catches the mistake, and whether there is anything to be seen of it in this case."""
    basis = case if wrong.calls == 1 else _in_two_calls(case)
    visible = _apart(basis, wrong) > _RADII
    found = caught(Wrong([key]), case)
    score.count("mistakes caught, of all pairs of a mistake and a case", found)
    if visible and not score.count("mistakes caught, of those that are another function on the data", found):
        score.missed.append(f"{' '.join(key)} in {case.id}")
    return found, visible


def _apart(case: Case, wrong: Case) -> float:
    """How far the wrong case's results are from the right ones', in radii that the right ones have at most."""
    widest = 1e-6
    if case.calls == 1:
        right = Function(lambda asked: computed(asked)[0])
        widest = judge_answer(case, right.ask(case), Tolerance()).tally.widest
    farthest = 0.0
    # not strict: to return fewer results than the layer is a mistake, too
    for own, other in zip(computed(widened(case)), computed(widened(wrong)), strict=False):
        for y, z in zip(own, other, strict=False):
            farthest = max(farthest, _distance(y, z))
    return farthest / max(widest, 1e-300)


def _distance(y: Array, z: Array) -> float:
    """The largest difference; infinite between other shapes, and where one is NaN alone."""
    if y.shape != z.shape or (np.isnan(y) != np.isnan(z)).any():
        return float("inf")
    with np.errstate(invalid="ignore"):  # between infinities, which count as no difference
        return float(np.nan_to_num(np.abs(y - z)).max(initial=0))


def _naming(score: Score, key: Key, case: Case) -> None:
    ids = [cause.id for cause in explained(findings(Wrong([key]), case), seconds=0)]
    score.count("named as the only cause, of those caught that were diagnosed", ids == [key[0]])
    if not score.count("named, alone or among causes that explain the same answers", key[0] in ids):
        score.misnamed.append(f"{' '.join(key)} in {case.id}: {', '.join(ids) or 'no cause'}")


def explained(found: Sequence[Finding], seconds: float) -> tuple[Cause, ...]:
    """The causes that the check gives: mistakes, or else weights that are not in effect. seconds: for pairs."""
    return diagnose(found, seconds=seconds).causes or in_effect(found).causes
