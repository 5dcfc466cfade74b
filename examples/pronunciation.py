"""A real port, checked: the GRU that g2p_en (pronunciation of English words) took out of PyTorch and wrote in NumPy.

    pip install --no-deps g2p_en && python examples/pronunciation.py

Its trained weights (128 units, gates in PyTorch's order r z n, two biases) are put into Keras's order z r h and into a
Keras model through `to_keras`; then the package's own forward pass is the candidate, on words and on all that the check
asks beside them. Last, what forgetting to reorder the gates looks like.
"""

import sys
from unittest.mock import MagicMock

import numpy as np

import parity
import rnn_scratch

# What g2p_en downloads and imports for whole sentences is not needed for its network.
sys.modules |= {name: MagicMock() for name in ("nltk", "nltk.corpus", "nltk.tokenize", "inflect")}
from g2p_en.g2p import G2p  # noqa: E402

WORDS = ("parity", "recurrent", "keras", "activationist")
UNITS = 128

package = G2p.__new__(G2p)  # not __init__, which reads dictionaries
package.load_variables()


def gates(array: np.ndarray, order: str = "zrh") -> np.ndarray:
    """Blocks of rows from PyTorch's order r z n to that one."""
    blocks = dict(zip("rzh", np.split(array.astype(np.float32), 3), strict=True))
    return np.concatenate([blocks[gate] for gate in order])


def model(order: str) -> rnn_scratch.Sequential:
    Wx, Wh, b, b_h = (gates(getattr(package, f"enc_{name}"), order) for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
    return rnn_scratch.Sequential(
        [
            rnn_scratch.Embedding(package.enc_emb.astype(np.float32)),
            rnn_scratch.GRU(Wx, Wh, np.stack([b, b_h]), return_sequences=True),
        ]
    )


def forward(x: np.ndarray) -> dict[str, np.ndarray]:
    """The package's own lookup and loop, on token ids (batch, timesteps)."""
    embedded = np.take(package.enc_emb, x, axis=0)
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    h = package.gru(embedded, x.shape[1], *(getattr(package, f"enc_{name}") for name in names))
    return {"embedding": embedded, "gru": h}


def letters(words: tuple[str, ...]) -> np.ndarray:
    """Token ids, the end marked and padding after it."""
    ids = np.zeros((len(words), max(map(len, words)) + 1), np.int32)
    for row, word in zip(ids, words, strict=True):
        row[: len(word) + 1] = [package.encode_ids[char] for char in word] + [2]
    return ids


package.encode_ids = {char: n for n, char in enumerate(["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"])}
for order in ("zrh", "rzh"):
    print(f"gates in the order {' '.join(order)}")
    print(parity.check(forward, parity.to_keras(model(order)), letters(WORDS)), "\n")
