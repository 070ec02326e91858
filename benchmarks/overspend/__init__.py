"""What each tool lets through: `make overspend` runs them against a provider that keeps the true bill."""
