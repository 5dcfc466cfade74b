"""A report as JSON, for whatever reads it next."""

import json

from parity.report.data import Report


def to_json(report: Report) -> str:
    """`Report.to_dict` in strict JSON."""
    # Python's own NaN and Infinity are no JSON; `to_dict` has them as strings
    return json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
