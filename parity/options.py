"""The options that mean the same whatever is checked: defined here once for the command line, the pytest plugin and
`parity.toml`. Imported at the start of every pytest run, so it imports next to nothing."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from parity.errors import InputError


@dataclass(frozen=True)
class Option:
    """name: the keyword of `parity.check`. kind: its type; a tuple is of names, as one text with commas or one by one.
    least: the smallest number that makes sense, itself unless it is open. among: the names that there are."""

    name: str
    kind: type
    default: Any
    help: str
    least: float = 0
    open: bool = False
    metavar: str | None = None
    among: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return self.name.replace("_", "-")

    def checked(self, value: Any, where: str) -> Any:
        """The value, or InputError for one of another kind or out of its range."""
        if self.kind is tuple:
            return self._names(value, where) if self.among else self._range(value, where)
        expected = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}[self.kind]
        fits = isinstance(value, (int, float) if self.kind is float else self.kind)
        if not fits or (isinstance(value, bool) and self.kind is not bool):
            raise InputError(f"{where}{self.name}: expected {expected}; received {value!r}")
        if self.kind in (int, float):
            self.check_range(value, where)
        return value

    def _names(self, value: Any, where: str) -> tuple[str, ...]:
        """Those names, each once and in their own order."""
        given = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or any(name not in self.among for name in given):
            raise InputError(f"{where}{self.name}: expected of {', '.join(self.among)}; received {value!r}")
        return tuple(name for name in self.among if name in given)

    def _range(self, value: Any, where: str) -> tuple[float, ...]:
        """Two numbers, the lower one first."""
        try:
            low, high = map(float, value.split(",") if isinstance(value, str) else value)
        except (TypeError, ValueError):
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            expected = "two finite numbers, LOW,HIGH, the lower one first"
            raise InputError(f"{where}{self.name}: expected {expected}; received {value!r}")
        return low, high

    def written(self, value: Any) -> str:
        """The value as it stands on a command line."""
        return ",".join(map(str, value)) if self.kind is tuple else str(value)

    def check_range(self, value: float, where: str = "") -> None:
        """InputError for a number that is out of its range, NaN among them: a NaN tolerance passes everything."""
        allowed = self.least < value < math.inf or (value == self.least and not self.open)
        if not allowed:
            expected = f"more than {self.least:g}" if self.open else f"{self.least:g} or more"
            raise InputError(f"{where}{self.name}: expected a finite number, {expected}; received {value}")


OPTIONS = (
    Option("seed", int, 0, "Of all that is drawn."),
    Option("atol", float, 0.0, "Granted beside rounding; the verdict is then not proved."),
    Option("rtol", float, 0.0, "Likewise, relative to what is expected."),
    Option("strict", bool, False, "A PASS that a known mistake would have got too is INCONCLUSIVE."),
    Option("only_mistake", str, None, "Look for that mistake alone.", metavar="ID"),
    Option("timeout", float, None, "Seconds that a program or graph may take for one question.  [60]", open=True),
    Option(
        "fixed",
        tuple,
        (),
        "The port takes only the timesteps, the batch or both (timesteps,batch) of --inputs, else of --input-shape.",
        metavar="SIZES",
        among=("timesteps", "batch"),
    ),
    Option(
        "domain",
        tuple,
        None,
        "All inputs that are drawn are kept within that range, for a port that clips its inputs on purpose.",
        metavar="LOW,HIGH",
    ),
)
NAMED = {option.name: option for option in OPTIONS}


def expect(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """InputError for a name that is not known, with the nearest that is."""
    known = list(known)
    for name in names:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"{where}{name}: no such name; {hint}")


def check_mistake(name: Any, where: str) -> None:
    """InputError for what is no mistake's id. Of what is only looked for if somebody names one: it takes a while."""
    if name is not None:
        from parity.given.settings import check_mistake

        try:
            check_mistake(name)
        except InputError as error:
            raise InputError(f"{where}{error}") from None


def checked(given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Those of the given values that are options, each checked."""
    return {name: NAMED[name].checked(value, where) for name, value in given.items() if name in NAMED}
