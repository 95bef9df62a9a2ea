"""What the hot path costs, beside its peers."""
