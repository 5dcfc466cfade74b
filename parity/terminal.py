"""Text from anywhere, a layer's name from a stranger's file, as a terminal or a page may show it."""

import re


def printable(text: object) -> str:
    """The text with \\x1b for an escape and so on: no control characters, no overrides of the direction of writing, no
    half surrogates. Lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def one_line(text: object) -> str:
    return " ".join(printable(text).split())


def briefly(error: BaseException) -> str:
    """What an error is and says, in one line of some 300 characters."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())  # Keras writes some words in bold
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
