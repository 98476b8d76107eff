"""Why a run does not learn: what its data, its weights and its curves give away."""
