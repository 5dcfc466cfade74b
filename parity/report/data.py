"""Reports: frozen data about Cases. Printing and JSON are functions of it."""

import math
import os
import platform
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

VERDICTS = ("ERROR", "FAIL", "INCONCLUSIVE", "PASS")
"""Of several, the first of these is the verdict on all."""

PROVING = frozenset({"stepwise", "stepped", "forward"})
"""The methods whose FAIL and whose PASS are proved; see `parity.judging`."""

ASSUMED = "for sums in any order, rounded to nearest in the layer's dtype, and activations within their allowance"
"""What a proof is conditional on."""

EXIT_STATUS = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2, "ERROR": 2}
SHOWN = 20
MOST_WORST = 5
"""Elements told of a report; each case has as many."""


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
        return f"first at {self.place}"

    @property
    def place(self) -> str:
        return (
            f"timestep {self.timestep}, batch {self.batch}, unit {self.unit}: got {self.got:.7g}, "
            f"expected {self.expected:.7g} ± {self.radius:.1e} ({self.ratio:,.3g} radii)"
        )

    def to_dict(self) -> dict[str, Any]:
        return {name: plain(value) for name, value in vars(self).items()}


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
        worst = "" if self.worst is None else f"  {self.worst:.3g} radii"
        method = f" ({', '.join(self.method)})" if self.method else ""
        return f"{self.verdict:<12}  {self.name} ({self.kind}){worst}{method}" + (
            "  its inputs already differed" if self.inputs_differed else ""
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "verdict": self.verdict,
            "worst": plain(self.worst),
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

    @property
    def gist(self) -> str:
        """In a few words, why it is no PASS."""
        if self.first_divergence and self.verdict == "FAIL":
            return f"first outside at timestep {self.first_divergence.timestep}"
        return self.notes[0] if self.notes else ""

    def __str__(self) -> str:
        line = f"{self.verdict}  {self.id}"
        if self.first_divergence:
            line += f"  {self.first_divergence}; {self.outside:,} of {self.count:,} elements outside"
        elif self.verdict in ("PASS", "INCONCLUSIVE"):
            line += f"  largest {self.worst:.3g} radii, {self.max_abs:.2g} absolute"
        line += f" ({', '.join(self.method)})" if self.method else ""
        layers = (f"      {layer}" for layer in self.layers)
        return "\n".join([line, *layers, *(f"      {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        first = self.first_divergence
        keys = ("batch", "timestep", "unit", "expected", "got", "radius")
        return {
            "id": self.id,
            "verdict": self.verdict,
            "proved": self.proved,
            "method": list(self.method),
            "worst": plain(self.worst),
            "max_abs": plain(self.max_abs),
            "rms": plain(self.rms),
            "keras_worst": plain(self.keras_worst),
            "first_divergence": first and {key: plain(getattr(first, key)) for key in keys},
            "notes": list(self.notes),
            "layers": [layer.to_dict() for layer in self.layers],
            "worst_elements": [element.to_dict() for element in self.worst_elements],
            "explained": list(self.explained),
            "command": self.command,
        }


@dataclass(frozen=True)
class Cause:
    """A mistake, or two together, of which the candidate is within rounding.

    id: of the mistake; "a + b" for two. what: what the port does. fix: what to do about it. detail: which variant.
    largest: the candidate's largest |difference| from the wrong layer, in radii. apart: what would tell this cause from
    the others that explain the same answers. within: of which cases it is the cause, if not of all.
    """

    id: str
    what: str
    fix: str
    source: str = ""
    detail: str = ""
    largest: float = 0.0
    apart: str = ""
    within: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        within = f" in {self.within}" if self.within else ""
        return (
            f"cause{within}: {self.id}: {self.what}{detail}. With that changed every element is within rounding "
            f"(largest {self.largest:.2g} radii).\nfix: {self.fix}."
        )

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "largest": plain(self.largest)}


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

    @property
    def hidden(self) -> str:
        """By what, and where."""
        return ", ".join(filter(None, (self.why, self.within and f"in {self.within}")))

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
    def counted(self) -> str:
        """The counts in words."""
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items() if name != "cases" and number)
        return f"{len(self.cases)} cases: {counts}{self._largest()}" if self.cases else "no case"

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
        return "\n".join([*self._case_lines(), *self._summary()])

    def _case_lines(self) -> list[str]:
        if len(self.cases) == 1:
            return [str(replace(self.cases[0], verdict=next(settled(self)).verdict))]
        bad = sorted(
            (case for case in self.cases if case.verdict != "PASS"), key=lambda case: VERDICTS.index(case.verdict)
        )
        lines = [str(case) for case in bad[:SHOWN]]
        return lines + ([f"... and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else [])

    def _summary(self) -> list[str]:
        lines = []
        if len(self.cases) > 1:
            lines.append(f"{self.verdict}  {self.counted}")
        if self.marks:
            lines.append(f"every FAIL, and no PASS, has one of: {', '.join(self.marks)}")
        lines += self._explained()
        lines += [self.proof] if self.proof else []
        lines += [f"not asked: {'; '.join(self.not_asked)}"] if self.not_asked else []
        return [*lines, ", ".join(f"{name} {value}" for name, value in self.environment.items())]

    def _explained(self) -> list[str]:
        """Of a FAIL its causes, of a PASS what would have passed too."""
        lines = [*self.why]
        if self.strict and self.not_visible:
            lines.append("INCONCLUSIVE, because of --strict: a known mistake would not have shown")
        for what, blind in (
            ("not visible in this check", self.not_visible),
            ("no difference with these weights", self.no_difference),
        ):
            reasons = dict.fromkeys(b.hidden for b in blind)
            groups = [(", ".join(b.id for b in blind if b.hidden == reason), reason) for reason in reasons]
            told = "; ".join(f"{ids} ({reason})" if reason else ids for ids, reason in groups)
            lines += [f"{what}: {told}"] if blind else []
        return lines

    @property
    def why(self) -> list[str]:
        """What is known of a FAIL."""
        lines = [line for cause in self.causes for line in str(cause).split("\n")]
        apart = next((cause.apart for cause in self.causes if cause.apart), "")
        lines += [f"these causes explain the same answers: {apart}"] if apart else []
        return [*lines, *self.known, *([f"smallest case that fails: {self.smallest}"] if self.smallest else [])]

    @property
    def worst_lines(self) -> list[str]:
        """The elements that are the farthest off, of all cases that fail."""
        found = [(e, case) for case in self.cases if case.verdict == "FAIL" for e in case.worst_elements]
        found.sort(key=lambda pair: -pair[0].ratio)
        several = len(self.cases) > 1
        return [f"worst: {e.place}" + (f" in {case.id}" if several else "") for e, case in found[:MOST_WORST]]

    @property
    def marks(self) -> list[str]:
        """The parts of ids that tell the failing cases from the passing ones, if some do."""
        parts = {
            verdict: [set(case.id.rpartition(": ")[2].split("-")) for case in self.cases if case.verdict == verdict]
            for verdict in VERDICTS
        }
        marks = set[str]().union(*parts["FAIL"]) - set[str]().union(*parts["PASS"])
        telling = all(marks & case for case in parts["FAIL"]) and 2 * len(parts["PASS"]) >= len(parts["FAIL"])
        return sorted(marks) if telling else []

    @property
    def proof(self) -> str:
        """What the verdict rests on; nothing where nobody knows."""
        if self.verdict not in ("PASS", "FAIL"):
            return ""
        decisive = [case for case in self.cases if case.verdict == self.verdict]
        proved = sum(case.proved for case in decisive)
        share = "" if len(decisive) == 1 else f" in {proved} of {len(decisive)} cases"
        others = sorted({method for case in decisive if not case.proved for method in case.method} - PROVING)
        rest = f"; evidence, not proof, in the others: {', '.join(others)}" if others and proved else ""
        if not proved:
            return "not proved" + (f": {', '.join(others)} evidence" if others else "")
        return f"proved{share}, {ASSUMED}{rest}"

    def _largest(self) -> str:
        measured = [case for case in self.cases if case.worst is not None]
        if not measured:
            return ""
        largest = max(measured, key=lambda case: case.worst or 0)
        return f"; largest {largest.worst:.3g} radii in {largest.id}"


def plain(value: Any) -> Any:
    """A number as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def environment() -> dict[str, str]:
    """Versions of this package and of what the reference is computed with."""
    try:
        own = version("keras-parity")
    except PackageNotFoundError:
        own = "not installed"
    return {"keras-parity": own, "python": platform.python_version(), "numpy": np.__version__}


def shell_line(words: Sequence[str]) -> str:
    """The words as a command line for a shell; with the backend, where the environment named it."""
    backend = os.environ.get("KERAS_BACKEND")
    named = [f"KERAS_BACKEND={shlex.quote(backend)}"] if backend else []
    return " ".join([*named, shlex.join(words)])


# --- several reports in one ---


def merged(named: Iterable[tuple[str, Report]], incomplete: str = "") -> Report:
    """Several reports in one: their cases, each under its report's name, and whatever they say, once, with whose it is.

    incomplete: why some are missing, which makes it an ERROR. What `strict` made of a report goes to its cases.
    """
    reports = list(told_apart(named))
    environment: dict[str, str] = {}
    for _, report in reports:
        environment |= report.environment
    not_asked, asking = lines_of(reports, "not_asked"), sum(bool(report.not_asked) for _, report in reports)
    known = (f"{several(names)}: {line}" for line, names in lines_of(reports, "known").items())
    return Report(
        tuple(own(name, report, case) for name, report in reports for case in settled(report)),
        tuple(line if len(n) == asking else f"{line} (in {several(n)})" for line, n in not_asked.items()),
        environment,
        tuple(replace(cause, apart="") for cause in attributed(reports, "causes")),
        (*([f"incomplete: {incomplete}"] if incomplete else []), *known),
        tuple(attributed(reports, "blind")),
        incomplete=incomplete,
        smallest=next((f"{name}: {report.smallest}" for name, report in reports if report.smallest), ""),
    )


Named = Sequence[tuple[str, Report]]


def told_apart(named: Iterable[tuple[str, Report]]) -> Iterator[tuple[str, Report]]:
    """A number after each name that was there before: a test may check twice."""
    seen = Counter[str]()
    for name, report in named:
        seen[name] += 1
        yield (f"{name} ({seen[name]})" if seen[name] > 1 else name), report


def own(name: str, report: Report, case: CaseReport) -> CaseReport:
    explained = tuple(report.why) if case.verdict == "FAIL" else ()
    return replace(case, id=f"{name}: {case.id}", explained=explained, command=case.command or report.command)


def several(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 2} more" if len(names) > 3 else ""
    return ", ".join(names[:2] if rest else names) + rest


def lines_of(reports: Named, field: str) -> dict[str, list[str]]:
    """What is said, and by whom."""
    found: dict[str, list[str]] = {}
    for name, report in reports:
        for line in getattr(report, field):
            found.setdefault(line, []).append(name)
    return found


def attributed(reports: Named, field: str) -> Iterator[Any]:
    """The causes or blind spots, each once: as it is in the report where it is largest."""
    groups: dict[tuple[Any, ...], list[tuple[str, Any]]] = {}
    for name, report in reports:
        for item in getattr(report, field):
            key = item.id, item.detail, getattr(item, "why", ""), getattr(item, "same", False)
            groups.setdefault(key, []).append((name, item))
    for found in groups.values():
        first = max((item for _, item in found), key=lambda item: getattr(item, "largest", 0.0))
        whose = [f"{name} ({item.within})" if item.within else name for name, item in found]
        yield replace(first, within=several(whose))


def settled(report: Report) -> Iterator[CaseReport]:
    """Its cases, with its verdict where `strict` made that another one than theirs."""
    for case in report.cases:
        if report.strict and report.verdict == "INCONCLUSIVE" and case.verdict == "PASS":
            blind = ", ".join(found.id for found in report.not_visible)
            note = f"strict: a known mistake would not have shown: {blind}"
            yield replace(case, verdict="INCONCLUSIVE", notes=(*case.notes, note))
        else:
            yield case
