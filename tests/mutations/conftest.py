"""The list of guards and their killers, printed at the end of the run."""

import pytest

GUARD = "guard"  # the property of a test's report that has a line of the list
HEAD = ("guard", "file", "killed by")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it, as a Markdown table."""
    reports = [each for each in terminalreporter.stats.get("passed", []) if each.when == "call"]
    lines = [tuple(said) for report in reports for name, said in report.user_properties if name == GUARD]
    if lines:
        terminalreporter.section("guards, and the tests that fail without them")
        for cells in (HEAD, ("---",) * len(HEAD), *sorted(lines, key=lambda line: (line[1], line[0]))):
            terminalreporter.write_line(f"| {' | '.join(cells)} |")
