"""What can be wrong with a question, as opposed to its answer. One line each: expected, received, what to do."""


class ParityError(Exception):
    """The question itself is wrong; nothing is concluded about the candidate."""


class InputError(ParityError, ValueError):
    """Inputs, masks, states, weights or a selection that do not fit."""


class UnsupportedError(ParityError, ValueError):
    """A layer or a setting that is not covered; the message names it."""


class ModelError(ParityError):
    """A model file that cannot be read."""


class CandidateError(ParityError):
    """A candidate that cannot be found, called or understood."""


class OracleError(ParityError):
    """What computes the expected outputs raised while it did: Keras as a rule."""


class MissingExtraError(ParityError, ImportError):
    """A library that is not installed; the message names the extra that brings it."""
