"""The four verdicts."""

VERDICTS = ("ERROR", "FAIL", "INCONCLUSIVE", "PASS")
"""Of several, the first of these is the verdict on all."""

EXIT_STATUS = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "ERROR": 2}
