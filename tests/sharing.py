"""Which tests stay on one process, because they share something costly."""

from pathlib import Path

#: The files whose tests share the fixture `pages`, and the tests that take long alone.
ON_PAGES = ("test_book", "test_browser", "test_browser_model", "test_prose")
ALONE = ("test_chapter_runs_with_other_parameters", "test_claims_hold_with_other_seeds")


def shared(nodeid: str) -> str:
    """The name of what must run on one process, for the test with this id."""
    file, _, test = nodeid.partition("::")
    if test.startswith(ALONE):
        return nodeid
    return "pages" if Path(file).stem in ON_PAGES else file
