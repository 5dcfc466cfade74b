"""The score itself: numbers of things, and of how many."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


def no_count() -> list[int]:
    return [0, 0]


@dataclass
class Score:
    """counts: of each thing how often it was so, and of how many. missed: visible mistakes that passed; misnamed: those
    given another cause; accused: correct implementations that failed. largest: the most radii that a correct one was
    off; at most 1 passes."""

    counts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(no_count))
    missed: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)
    accused: list[str] = field(default_factory=list)
    largest: float = 0.0
    seconds: float = 0.0

    def count(self, what: str, yes: bool) -> bool:
        self.counts[what][0] += yes
        self.counts[what][1] += 1
        return yes

    def merge(self, other: "Score") -> None:
        for what, (yes, of) in other.counts.items():
            self.counts[what][0] += yes
            self.counts[what][1] += of
        self.missed += other.missed
        self.misnamed += other.misnamed
        self.accused += other.accused
        self.largest = max(self.largest, other.largest)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "counts": {what: {"number": yes, "of": of} for what, (yes, of) in self.counts.items()},
            "largest_correct": self.largest,
            "missed": self.missed,
            "misnamed": self.misnamed,
            "accused": self.accused,
            "seconds": round(self.seconds, 1),
        }
