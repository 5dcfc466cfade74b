"""Reports: frozen data about cases. What they say stands in `words`; the forms in which they are read, in `pages`."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from parity.report import words
from parity.report.verdicts import EXIT_STATUS, VERDICTS


@dataclass(frozen=True)
class Divergence:
    """An element outside its ball. The first one is so in the order of the output, then the batch, then the units."""

    batch: int
    timestep: int
    unit: int
    expected: float
    got: float
    radius: float
    ratio: float

    def __str__(self) -> str:
        return f"first at {words.place(self)}"

    def to_dict(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Trace:
    """Of each time step, or of each stretch of them, the element that is the most radii off: its |difference| and its
    radius. At most a few hundred. seen_in: the question and the layer that it is of, where that is not the case."""

    timesteps: tuple[int, ...]
    differences: tuple[float, ...]
    radii: tuple[float, ...]
    seen_in: str = ""


@dataclass(frozen=True)
class LayerReport:
    """What one layer of a model showed, by itself or with others that could not be seen apart from it.

    inputs_differed: whether a layer before it was outside its ball already, so that what came in was not what the model
    would have put in. It is judged from what came in, so that need not be its own fault.
    """

    name: str
    kind: str
    verdict: str
    worst: float | None = None
    method: tuple[str, ...] = ()
    inputs_differed: bool = False

    def __str__(self) -> str:
        return words.layer_line(self)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "verdict": self.verdict,
            "worst": _plain(self.worst),
            "method": list(self.method),
            "inputs_differed": self.inputs_differed,
        }


@dataclass(frozen=True)
class CaseReport:
    """What one case showed, over the case itself and what was asked beside it.

    worst, keras_worst: the largest |difference| of the candidate and of Keras in radii; at most 1 passes, an array of
    the wrong shape is infinitely far off. max_abs, rms: of the candidate's differences, in the output's own unit, from
    what each step should have been. None where nothing could be compared. proved: the verdict rests on bounds alone.
    outside: of the question that failed, how many elements of how many (`count`). layers: of a model, its layer table.
    worst_elements: the few worst ones outside in the question, and of a model in the layer, of first_divergence.
    explained, command: of one case among those of several reports, what its own report says of a FAIL, and what repeats
    it alone.
    """

    id: str
    verdict: str
    proved: bool = False
    method: tuple[str, ...] = ()
    worst: float | None = None
    max_abs: float | None = None
    rms: float | None = None
    keras_worst: float | None = None
    first_divergence: Divergence | None = None
    notes: tuple[str, ...] = ()
    outside: int = 0
    count: int = 0
    layers: tuple[LayerReport, ...] = ()
    worst_elements: tuple[Divergence, ...] = ()
    explained: tuple[str, ...] = ()
    command: str = ""
    trace: Trace | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return "\n".join(words.case_lines(self))

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "verdict": self.verdict,
            "proved": self.proved,
            "method": list(self.method),
            "worst": _plain(self.worst),
            "max_abs": _plain(self.max_abs),
            "rms": _plain(self.rms),
            "keras_worst": _plain(self.keras_worst),
            "first_divergence": self._first(),
            "notes": list(self.notes),
            "layers": [layer.to_dict() for layer in self.layers],
            "worst_elements": [element.to_dict() for element in self.worst_elements],
            "explained": list(self.explained),
            "command": self.command,
        }

    def _first(self) -> dict[str, Any] | None:
        """The first divergence as schema 1 has it, without the ratio that the worst elements have."""
        if self.first_divergence is None:
            return None
        found = self.first_divergence.to_dict()
        del found["ratio"]
        return found


@dataclass(frozen=True)
class Cause:
    """A mistake, or two together, of which the candidate is within rounding.

    id: of the mistake; "a + b" for two. what: what the port does. fix: what to do about it. detail: which variant.
    largest: the candidate's largest |difference| from the wrong layer, in radii. apart: what would tell this cause from
    the others that explain the same answers. within: of which cases it is the cause, if not of all. granted: whether
    more than rounding was granted.
    """

    id: str
    what: str
    fix: str
    source: str = ""
    detail: str = ""
    largest: float = 0.0
    apart: str = ""
    within: str = ""
    granted: bool = False

    def __str__(self) -> str:
        return "\n".join(words.cause_lines(self))

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "largest": _plain(self.largest)}


@dataclass(frozen=True)
class Blind:
    """A mistake that would have passed too. same: it is the same function with these weights. why: what hides it.
    within: in which checks, if not in all."""

    id: str
    what: str
    why: str = ""
    same: bool = False
    detail: str = ""
    within: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Report:
    """Of one or several cases: their verdict together, what was not asked, and with what it was computed.

    causes: of a FAIL, the mistakes that explain it; known: what else is known of it. blind: of a PASS, the mistakes
    that would have passed too; visible: the ids of those that would not. strict: a blind spot makes it INCONCLUSIVE.
    smallest: the smallest case that fails, in words; failure: that Case. command: the command line that this came from,
    if one did. subject: what was checked against what, in words.
    """

    cases: tuple[CaseReport, ...]
    not_asked: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    causes: tuple[Cause, ...] = ()
    known: tuple[str, ...] = ()
    blind: tuple[Blind, ...] = ()
    visible: tuple[str, ...] = ()
    strict: bool = False
    incomplete: str = ""
    smallest: str = ""
    command: str = ""
    subject: str = ""
    failure: Any = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """ERROR before FAIL before INCONCLUSIVE before PASS; ERROR where there is no case."""
        if self.incomplete:
            return "ERROR"
        found = {case.verdict for case in self.cases}
        worst = next((verdict for verdict in VERDICTS if verdict in found), "ERROR")
        return "INCONCLUSIVE" if worst == "PASS" and self.strict and self.not_visible else worst

    @property
    def settled(self) -> Iterator[CaseReport]:
        """Its cases, with its verdict where `strict` made that another one than theirs."""
        turned = self.strict and self.verdict == "INCONCLUSIVE"
        for case in self.cases:
            if turned and case.verdict == "PASS":
                yield replace(case, verdict="INCONCLUSIVE", notes=(*case.notes, words.strict_note(self)))
            else:
                yield case

    @property
    def not_visible(self) -> tuple[Blind, ...]:
        """The mistakes that this data could not show."""
        return tuple(blind for blind in self.blind if not blind.same)

    @property
    def no_difference(self) -> tuple[Blind, ...]:
        """The mistakes that make no difference with these weights."""
        return tuple(blind for blind in self.blind if blind.same)

    @property
    def worst(self) -> float | None:
        """The largest |difference| in radii over all cases; at most 1 passes."""
        return max((case.worst for case in self.cases if case.worst is not None), default=None)

    @property
    def first_divergence(self) -> Divergence | None:
        """That of the first case which has one."""
        return next((case.first_divergence for case in self.cases if case.first_divergence), None)

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(case.verdict for case in self.cases)
        return {"cases": len(self.cases), **{verdict: found[verdict] for verdict in reversed(VERDICTS)}}

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types only; NaN and infinities as the strings "NaN", "Infinity", "-Infinity"."""
        return {
            "schema": 1,
            "verdict": self.verdict,
            "subject": self.subject,
            "environment": dict(self.environment),
            "cases": [case.to_dict() for case in self.cases],
            "causes": [cause.to_dict() for cause in self.causes],
            "known": list(self.known),
            "smallest": self.smallest,
            "not_visible": [blind.to_dict() for blind in self.not_visible],
            "no_difference": [blind.to_dict() for blind in self.no_difference],
            "not_asked": list(self.not_asked),
            "counts": self.counts,
            "command": self.command,
            "incomplete": self.incomplete,
        }

    def __str__(self) -> str:
        from parity.report.text import to_text  # a page like the others: it stands above the data

        return to_text(self)


def _plain(value: Any) -> Any:
    """A number as JSON has it."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
