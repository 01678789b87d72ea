"""What authors of providers and users need for their tests: contract suites, clocks, helpers."""

import sys

if "pytest" in sys.modules:
    # So that a failed `assert` of a contract suite tells the values, as those of test modules do.
    sys.modules["pytest"].register_assert_rewrite(
        *(f"{__name__}.{suite}" for suite in ("persistence", "queue", "lock"))
    )
