"""Tables and figures of the paper, studies and benchmarks; run from the repository root with `python -m`."""
