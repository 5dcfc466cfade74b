"""The wrong Cases of one case, by mistake and variant, each worked out once; and of two mistakes together."""

from collections.abc import Iterable, Sequence

from parity.cases.case import Case
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.entry import Variants

Key = tuple[str, str]
"""A mistake's id, and which of its variants."""


class WrongCases:
    """What mistakes make of a case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._known: dict[str, Variants] = {}
        self._second: tuple[Key, WrongCases] | None = None

    def __getitem__(self, name: str) -> Variants:
        """Those of the mistake of that id, by variant; none where it does not apply."""
        if name not in self._known:
            self._known[name] = MISTAKES[name].variants(self.case)
        return self._known[name]

    def keys(self, names: Iterable[str]) -> list[Key]:
        """Every variant of those mistakes that changes the case."""
        return [(name, label) for name in names for label in self[name]]

    def composed(self, keys: Sequence[Key]) -> Case | None:
        """That of those mistakes together, two at most; None where they change nothing."""
        if not keys:
            return None
        first, *more = keys
        wrong = self[first[0]].get(first[1])
        if not more:
            return wrong
        (second,) = more
        after = self if wrong is None else self._after(first, wrong)
        return after[second[0]].get(second[1], wrong)

    def _after(self, first: Key, wrong: Case) -> "WrongCases":
        # of all that may come first only the last is kept: pairs are tried with one after the other of them
        if self._second is None or self._second[0] != first:
            self._second = first, WrongCases(wrong)
        return self._second[1]
