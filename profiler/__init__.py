"""Everything that touches torch: the real backend, the measurement of costs, their fit and the validation."""
