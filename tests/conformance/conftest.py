"""Says at the end of a run, where everyone reads, that the public suites were left out."""

import pytest

from tests.conformance.test_conformance import LEFT_OUT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Skips are one letter among two thousand dots; this is a line of its own."""
    if any(LEFT_OUT in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_sep("!", LEFT_OUT, yellow=True, bold=True)
