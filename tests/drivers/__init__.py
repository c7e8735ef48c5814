"""The conformance suite on our own drivers, with real programs: `python -m tests.drivers [-o json]`."""
