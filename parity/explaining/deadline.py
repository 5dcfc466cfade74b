"""How long a search may take."""

import time
from collections.abc import Callable


class Deadline:
    """So many seconds from now. clock: `time.thread_time` where a busy machine may change no answer."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def passed(self) -> bool:
        return self._clock() > self._end
