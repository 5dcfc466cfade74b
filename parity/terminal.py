"""Text from anywhere, a layer's name from a stranger's file, as a terminal or a page may show it."""


def printable(text: object) -> str:
    """The text with \\x1b for an escape and so on: no control characters, no overrides of the direction of writing, no
    half surrogates. Lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def one_line(text: object) -> str:
    return " ".join(printable(text).split())
