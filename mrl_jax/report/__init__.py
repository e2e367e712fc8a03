"""A run, or several, as one page of HTML: what was trained, how well it retrieves, and whether it memorised."""

from mrl_jax.report.write import write_report

__all__ = ["write_report"]
