"""Audit of labels: which of them are probably wrong, and what the data say about classes, duplicates and outliers."""

from mrl_jax.audit.found import Audit, Noise
from mrl_jax.audit.labels import audit_labels
from mrl_jax.audit.run import audit

__all__ = ["Audit", "Noise", "audit", "audit_labels"]
