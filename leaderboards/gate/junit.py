"""A comparison as JUnit XML, the form in which CI systems read tests; written by junitparser."""

import io

from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

from leaderboards.escaping import visible
from leaderboards.gate.findings import Kind, Outcome, Report


def junit_report(report: Report) -> bytes:
    """One suite a kind of finding, one case a finding: a regression is a failure, what is inconclusive is skipped.

    Where nothing was measured, one case fails and says so: a CI system would else take no tests for success.
    """
    document = JUnitXml(f"certbench compare {visible(report.base)} {visible(report.head)}")
    for kind in Kind:
        found = [item for item in report.findings if item.kind is kind]
        if not found:
            continue
        suite = TestSuite(kind.value)
        for item in found:
            case = TestCase(visible(f"{item.entry} {item.about}".strip()), f"certbench.{kind.value}")
            if item.outcome is Outcome.REGRESSION:
                case.result = [Failure(visible(item.said), kind.value)]
            elif item.outcome is Outcome.INCONCLUSIVE:
                case.result = [Skipped(visible(f"inconclusive: {item.said}"))]
            suite.add_testcase(case)
        document.add_testsuite(suite)
    if report.outcome is Outcome.NOTHING:
        suite, case = TestSuite("comparison"), TestCase("nothing measured", "certbench.comparison")
        case.result = [Failure(visible(report.headline), "nothing measured")]
        suite.add_testcase(case)
        document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    document.write(buffer, pretty=True)
    return buffer.getvalue()
