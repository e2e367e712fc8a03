"""A run, or several, or an audit, as one page of HTML."""

from mrl_jax.report.audit_page import write_audit_page
from mrl_jax.report.write import write_report

__all__ = ["write_audit_page", "write_report"]
