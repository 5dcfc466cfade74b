"""Objects that may keep a state of their own: made anew, or reset, for each question, where there is a way."""

import inspect
from collections.abc import Callable
from typing import Any

from parity.candidates.answer import Answer, Candidate
from parity.candidates.functions import Function
from parity.candidates.sized import Sized, within
from parity.cases.case import Case
from parity.errors import CandidateError
from parity.terminal import briefly

RESETS = ("reset_state", "reset_states", "reset")
"""The methods that make an object forget its state, those that can be called without arguments."""


class Object:
    """A candidate that may keep a state. renew: makes it as it was at first; None where there is no way. how: what the
    user is to do for the same."""

    callable = True

    def __init__(self, candidate: Candidate, renew: Callable[[], Candidate] | None, how: str = "") -> None:
        self.inner, self.renew, self.how = candidate, renew, how
        self.takes, self.fixed = candidate.takes, candidate.fixed

    def ask(self, case: Case) -> Answer:
        return self._renewed().ask(case)

    def converse(self, case: Case) -> list[Answer]:
        inner = self._renewed()
        if "layer" in self.takes or self.renew is None:
            return inner.converse(case)
        return [inner.ask(case.call(n)) for n in range(case.calls)]

    def ask_on(self, case: Case) -> Answer:
        """Its answer where nobody renews it."""
        return self.inner.ask(case)

    def of_one_sequence(self) -> "Object | None":
        """The same object, where it is a function of one sequence: called with one row after another."""
        single, renew = _single(self.inner), self.renew
        if single is None:
            return None
        return Object(single, renew and (lambda: _single(renew()) or single), self.how)

    def _renewed(self) -> Candidate:
        if self.renew is not None:
            self.inner = self.renew()
        return self.inner


def _single(candidate: Candidate) -> Candidate | None:
    return candidate.of_one_sequence() if isinstance(candidate, Function | Object) else None


def by_row(candidate: Candidate) -> Candidate | None:
    """The same candidate as one of single sequences; None where it cannot be one, or is one."""
    single = _single(within(candidate))
    if single is not None and isinstance(candidate, Sized):
        return Sized(single, candidate.sizes)
    return single


def reset_of(value: Any) -> str | None:
    """The name of its method that makes it forget its state."""
    for name in RESETS:
        method = getattr(value, name, None)
        if callable(method) and not isinstance(value, type) and _without_arguments(method):
            return name
    return None


def _without_arguments(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def resetting(owner: Any, name: str, candidate: Candidate) -> Object:
    """An object that is reset before each question."""

    def renew() -> Candidate:
        try:
            getattr(owner, name)()
        except Exception as error:
            raise CandidateError(f"candidate: its {name}() raised {briefly(error)}") from error
        return candidate

    return Object(candidate, renew, f"call {name}()")


def is_factory(value: Any) -> bool:
    """Whether it is a class, or a function without any parameter: what it makes is the candidate."""
    if isinstance(value, type):
        return True
    try:
        return inspect.isroutine(value) and not inspect.signature(value).parameters
    except (TypeError, ValueError):
        return False


def made_by(factory: Callable[[], Any], as_candidate: Callable[[Any], Candidate]) -> Object:
    """What a class or a function without arguments makes, made anew for each question."""
    name = getattr(factory, "__name__", "it")

    def make() -> Candidate:
        try:
            value = factory()
        except Exception as error:
            raise CandidateError(
                f"candidate: {name}() raised {briefly(error)}: expected a class, or a function, that makes a candidate "
                "without arguments; make an object of it, or name a function that does"
            ) from error
        if not callable(value) or is_factory(value):
            kind = type(value).__name__
            raise CandidateError(
                f"candidate: {name}: expected a function of x (and of layer, mask, initial_state those it needs), or "
                f"one that makes such a function; it takes nothing, and what it makes is {kind}"
            )
        return as_candidate(value)

    return Object(make(), make, "make it anew")


def keeps_unasked(candidate: Candidate) -> bool:
    """Whether it is an object that may keep a state and cannot be made anew: each call goes on from the last."""
    own = within(candidate)
    return isinstance(own, Object) and own.renew is None
