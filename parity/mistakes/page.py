"""The page docs/mistakes.md, made from the catalogue."""

import re

from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.entry import Mistake

_HEAD = """\
# Mistakes that are known by name

Made from the catalogue in `parity/mistakes/`: `python -m parity.mistakes > docs/mistakes.md`. After a
FAIL, a mistake is named as the cause where the candidate is within rounding of it in every answer that
it gave; after a PASS, one that would have passed too is named as not visible. `--only-mistake ID` looks
for one alone.

| id | what the port does | what to do | source |
| --- | --- | --- | --- |
"""


def page() -> str:
    orders = [name for name in MISTAKES if _is_order(name)]
    rows = [_row(mistake) for name, mistake in MISTAKES.items() if name not in orders]
    listed = ", ".join(f"`{name}`" for name in orders)
    return _HEAD + "\n".join(rows) + f"\n\nEvery order of gates is one more, by its letters: {listed}."


def _is_order(name: str) -> bool:
    return re.fullmatch("gate-order-[a-z]{3,4}", name) is not None


def _row(mistake: Mistake) -> str:
    cells = [f"`{mistake.id}`", *(_escaped(text) for text in (mistake.what, mistake.fix, mistake.source))]
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
