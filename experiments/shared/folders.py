"""Where the repository and the results lie."""

from pathlib import Path

__all__ = ["RESULTS", "ROOT"]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
