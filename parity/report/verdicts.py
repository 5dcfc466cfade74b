"""The four verdicts, and the methods that prove one."""

VERDICTS = ("ERROR", "FAIL", "INCONCLUSIVE", "PASS")
"""Of several, the first of these is the verdict on all."""

PROVING = frozenset({"stepwise", "stepped", "forward"})
"""The methods whose FAIL and whose PASS are proved; see `parity.judging`."""

EXIT_STATUS = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2, "ERROR": 2}
