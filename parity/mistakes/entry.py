"""What a mistake of the catalogue is, and the families in which mistakes are entered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Required, TypedDict, Unpack

from parity.cases.case import Case
from parity.mistakes.changes import Change, each

Variants = dict[str, Case]
_Make = Callable[[Case], Variants]


def _nothing(case: Case) -> str | None:
    """Nothing in particular hides it."""
    return None


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    id: the name in reports. what: what the port does, and what Keras does. fix: what to do about it. source: where it
    was seen. variants: the wrong Cases for a right one, by what tells one from another ("" where there is one); none
    where the mistake does not apply. hides: why a case that it applies to may not show it. drawn: its wrong values are
    drawn at random, so that a candidate can have made it and yet not have those. mixes_rows: what it makes of one batch
    row depends on the others. moot: the ids of those that mean nothing beside it, so that the two are no pair. common:
    whether people make it: orders of gates that no library has are only there to be named.
    """

    id: str
    variants: _Make = field(repr=False)
    what: str
    fix: str
    source: str = ""
    hides: Callable[[Case], str | None] = field(default=_nothing, repr=False)
    drawn: bool = False
    mixes_rows: bool = False
    moot: frozenset[str] = frozenset()
    common: bool = True


class _Told(TypedDict, total=False):
    """What is told of a mistake beside its variants; see `Mistake`."""

    what: Required[str]
    fix: Required[str]
    source: str
    hides: Callable[[Case], str | None]
    drawn: bool
    mixes_rows: bool
    moot: frozenset[str]
    common: bool


class Family:
    """Mistakes of one kind, in the order in which they are entered, which is that of the catalogue."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def mistake(self, name: str, **told: Unpack[_Told]) -> Callable[[_Make], _Make]:
        """Enters the function Case -> wrong Cases that it decorates."""

        def enter(variants: _Make) -> _Make:
            self.mistakes.append(Mistake(name, variants, **told))
            return variants

        return enter

    def enter(self, name: str, change: Change | dict[str, Change], **told: Unpack[_Told]) -> None:
        """Enters a change of the layers, or several by what tells them apart."""
        changes = change if isinstance(change, dict) else {"": change}

        def variants(case: Case) -> Variants:
            found: Variants = {}
            for label, one in changes.items():
                found |= each(case, one, label)
            return found

        self.mistakes.append(Mistake(name, variants, **told))
