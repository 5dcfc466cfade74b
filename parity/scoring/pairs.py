"""Two mistakes at once, which together are not the same function as any one."""

from collections.abc import Callable, Sequence

import numpy as np

from parity.cases.case import Case
from parity.cases.drawing import generator
from parity.explaining.causes import diagnose
from parity.explaining.functions import computed, differ
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.wrong_cases import Key, WrongCases
from parity.scoring.asking import Wrong, findings
from parity.scoring.counts import Score
from parity.scoring.mistakes import variants
from rnn_scratch.layers import Recurrent

_SECONDS = 4
"""For each diagnosis."""

_TRIES = 20
"""Pairs drawn for each that is wanted: many do not fit together, or one hides the other."""


def pairs(score: Score, cases: Sequence[Case], number: int, step: Callable[[str], None]) -> None:
    """So many of them: are they named?"""
    step("pairs of mistakes")
    rng = generator(0, "pairs")
    suited = [case for case in cases if _is_suited(case)]
    done = 0
    for _ in range(_TRIES * number):
        if done == number:
            return
        case = suited[int(rng.integers(len(suited)))]
        pair = _drawn(case, rng)
        if pair is None:
            continue
        done += 1
        first, second = pair
        ids = [cause.id for cause in diagnose(findings(Wrong(pair), case), seconds=_SECONDS).causes]
        if not score.count("pairs of mistakes named", f"{first[0]} + {second[0]}" in ids):
            score.misnamed.append(f"{first} + {second} in {case.id}: {', '.join(ids) or 'no cause'}")


def _is_suited(case: Case) -> bool:
    layer = case.layer
    plain = isinstance(layer, Recurrent) and layer.return_sequences and layer.dtype == np.float32
    return plain and "-normal" in case.id and 2 < layer.units <= 64 and case.timesteps > 2


def _drawn(case: Case, rng: np.random.Generator) -> list[Key] | None:
    """Two variants; None where they are of one mistake, do not fit together or are the same as one of all."""
    keys = [key for key, wrong in variants(case) if wrong.calls == 1 and not MISTAKES[key[0]].drawn]
    drawn = rng.choice(len(keys), 2, replace=False)
    # in the catalogue's order, in which the diagnosis names them
    first, second = keys[min(drawn)], keys[max(drawn)]
    if first[0] == second[0]:
        return None
    wrong = _fitting(case, [first, second])
    if wrong is None or _is_single(case, wrong, keys):
        return None
    return [first, second]


def _fitting(case: Case, pair: list[Key]) -> Case | None:
    """The wrong case of both; None where it cannot be computed: two mistakes need not fit together."""
    try:
        wrong = Wrong(pair).wrong(case)
        computed(wrong)
    except (ValueError, IndexError, TypeError):
        return None
    return wrong


def _is_single(case: Case, wrong: Case, keys: Sequence[Key]) -> bool:
    """Whether it is the same function as a single mistake, or as none."""
    if not differ(wrong, case):
        return True
    for key in keys:
        alone = WrongCases(case).composed([key]) or case
        if not differ(wrong, alone):
            return True
    return False
