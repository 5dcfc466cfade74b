"""How a check is made: its options, checked once and carried whole."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.errors import InputError
from parity.judging.tally import Tolerance
from parity.mistakes.catalogue import MISTAKES
from parity.options import NAMED


@dataclass(frozen=True)
class Settings:
    """What `parity.options` lists, for one check.

    seed: of all that is drawn. tolerance: what is granted beside rounding. strict: a PASS that a known mistake would
    have got as well is INCONCLUSIVE. only_mistake: the id of the only mistake that is looked for. timeout: seconds
    that a program or graph may take for one question, None for as many as usual. fixed: of "timesteps" and "batch",
    those of which the candidate takes no others than the user's own.
    """

    seed: int = 0
    tolerance: Tolerance = field(default_factory=Tolerance)
    strict: bool = False
    only_mistake: str | None = None
    timeout: float | None = None
    fixed: tuple[str, ...] = ()
    domain: tuple[float, ...] | None = None

    @classmethod
    def of(
        cls,
        *,
        seed: int = 0,
        atol: float = 0.0,
        rtol: float = 0.0,
        strict: bool = False,
        only_mistake: str | None = None,
        timeout: float | None = None,
        fixed: str | Sequence[str] = (),
        domain: str | Sequence[float] | None = None,
    ) -> "Settings":
        """Those of the options as a user gives them. InputError for one that makes no sense."""
        for name, value in (("atol", atol), ("rtol", rtol)):
            NAMED[name].check_range(value)
        check_seed(seed)
        check_mistake(only_mistake)
        sizes = NAMED["fixed"].checked(fixed, "")
        within = None if domain is None else NAMED["domain"].checked(domain, "")
        return cls(seed, Tolerance(float(atol), float(rtol)), strict, only_mistake, timeout, sizes, within)


def check_seed(seed: Any) -> None:
    if not (isinstance(seed, int) and seed >= 0):
        raise InputError(f"seed: expected an integer, 0 or more; received {seed!r}")


def check_mistake(name: str | None) -> None:
    """InputError for what is no mistake's id, with the nearest that are."""
    if name is None or name in MISTAKES:
        return
    near = difflib.get_close_matches(name, MISTAKES, n=3)
    near = near or [known for known in MISTAKES if name in known][:3]
    hint = f"the nearest are {', '.join(near)}" if near else f"known are {', '.join(MISTAKES)}"
    raise InputError(f"only_mistake: no mistake has the id {name!r}; {hint}")
