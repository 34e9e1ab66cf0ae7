"""L2: planted counterexamples that no gradient finds."""
