"""Action heads: what a policy emits."""
