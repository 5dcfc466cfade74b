"""A report as JUnit's XML, which every CI shows."""

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite
from junitparser.junitparser import FinalResult

from parity.report import words
from parity.report.data import CaseReport, Report
from parity.terminal import one_line, printable


def to_junit(report: Report) -> str:
    """A test case for each case: FAIL is its failure, ERROR and INCONCLUSIVE its error. Where all pass and the report
    does not (`strict`, or no case at all), one more says why."""
    suite = TestSuite("parity")
    for name, value in report.environment.items():
        suite.add_property(printable(name), printable(value))
    if report.command:
        suite.add_property("command", printable(report.command))
    for case in report.cases:
        suite.add_testcase(_testcase(case.id, _result(case, report)))
    # without a red test case of its own a CI would show such a report as green
    if report.verdict != "PASS" and all(case.verdict == "PASS" for case in report.cases):
        whole = f"{report.verdict}  {words.counted(report)}\n{report}"
        suite.add_testcase(_testcase("the report", _problem(Error, report.verdict, whole)))
    xml = JUnitXml("parity")
    xml.add_testsuite(suite)
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return text.decode() + "\n"


def _testcase(name: str, found: FinalResult | None) -> TestCase:
    case = TestCase(one_line(name), "parity")
    if found is not None:
        case.result = [found]
    return case


def _result(case: CaseReport, report: Report) -> FinalResult | None:
    if case.verdict == "PASS":
        return None
    lines = [str(case)]
    if case.verdict == "FAIL":
        lines += case.explained or words.why(report)
    if case.command:
        lines.append(f"again: {case.command}")
    return _problem(Failure if case.verdict == "FAIL" else Error, case.verdict, "\n".join(lines))


def _problem(kind: type[FinalResult], verdict: str, text: str) -> FinalResult:
    found = kind(one_line(text.partition("\n")[0]), verdict)
    found.text = printable(text)
    return found
