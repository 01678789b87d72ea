"""What authors of providers and users need for their tests: contract suites, clocks, helpers."""
