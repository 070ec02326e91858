"""Spend is never lost: every scenario of the recovery profile, with real processes that really die."""
