"""The text of a C header as it is built: arrays, then the body of one function, and how C says an activation."""

import re
from dataclasses import dataclass

import numpy as np

from parity.errors import UnsupportedError
from rnn_scratch.base import Array

_ACTIVATIONS = {
    "tanh": "tanhf({})",
    "sigmoid": "1.0f / (1.0f + expf(-{}))",
    "relu": "fmaxf({}, 0.0f)",
    "relu6": "fminf(fmaxf({}, 0.0f), 6.0f)",
    "hard_sigmoid": "fminf(fmaxf({} / 6.0f + 0.5f, 0.0f), 1.0f)",
    "hard_sigmoid_keras2": "fminf(fmaxf(0.2f * {} + 0.5f, 0.0f), 1.0f)",
    "softsign": "{0} / (1.0f + fabsf({0}))",
    "softplus": "fmaxf({0}, 0.0f) + log1pf(expf(-fabsf({0})))",
    "exponential": "expf({})",
    "elu": "{0} > 0.0f ? {0} : expm1f({0})",
    "silu": "{0} / (1.0f + expf(-{0}))",
    "linear": "{}",
}


def applied(name: str | None, value: str, owner: str) -> str:
    """The expression for the activation of that value. UnsupportedError for one that C has not here."""
    if (name or "linear") not in _ACTIVATIONS:
        raise UnsupportedError(f"{owner}: the C port carries {', '.join(_ACTIVATIONS)}; received {name}")
    return _ACTIVATIONS[name or "linear"].format(value)


@dataclass(frozen=True)
class Rows:
    """An array as the function has it, one row a step. name: in C. steps: how many, as C says it."""

    name: str
    steps: str


class Source:
    """What is written so far. width: of the last layer's output, or at first of x."""

    def __init__(self, name: str, width: int) -> None:
        self.name, self.width = name, width
        self.arrays: list[str] = []
        self.body: list[str] = []
        self.buffers: list[int] = []

    def array(self, name: str, array: Array, comment: str) -> str:
        """A constant array: its name in C."""
        name = name.strip(".")
        own = f"{self.name}_{_words(name)}"
        while any(f" {own}[" in known for known in self.arrays):  # of layers called a.b and a_b
            own += "_"
        dims = "".join(f"[{n}]" for n in array.shape)
        self.arrays.append(f"/* {plain(name)}: {comment} */\nstatic const float {own}{dims} = {_literal(array)};\n")
        return own

    def add(self, text: str) -> None:
        self.body += text.strip("\n").splitlines()

    def output(self, width: int, target: str | None) -> str:
        """Where a layer puts its outputs, that many numbers a step: the target, or room for every step between two
        layers."""
        self.width = width
        if target is not None:
            return target
        name = f"y{len(self.buffers)}"
        self.add(f"    float *{name} = work; /* (timesteps, {width}) */\n    work += (size_t)timesteps * {width};")
        self.buffers.append(width)
        return name


def identifier(name: str) -> str:
    """A C identifier, never one of the language's own or the library's."""
    return f"net_{_words(name)}"


def plain(text: str) -> str:
    """In a comment: nothing that ends it or goes on in the next line."""
    return re.sub(r"[^ -~]", "?", text).replace("*/", "* /").replace("\\", "/")


def for_each(count: int, *lines: str) -> list[str]:
    """A loop with n from 0 to that count, within the loop over time."""
    head = f"            for (int n = 0; n < {count}; n++)"
    body = [f"                {line}" for line in lines]
    return [f"{head} {{", *body, "            }"] if len(lines) > 1 else [head, *body]


def _words(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z_]", "_", name)


def _literal(array: Array) -> str:
    if array.ndim > 1:
        return "{\n" + ",\n".join(_literal(row) for row in array) + "}"
    return "{" + ", ".join(_number(value) for value in array) + "}"


def _number(value: float) -> str:
    text = f"{np.float32(value):.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")
