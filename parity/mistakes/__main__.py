"""`python -m parity.mistakes` prints docs/mistakes.md."""

from parity.mistakes.page import page

print(page())
