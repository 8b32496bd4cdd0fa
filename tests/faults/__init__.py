"""Faults as a campaign that anyone can repeat: ``python -m tests.faults`` (docs/reliability.md has its figures)."""
