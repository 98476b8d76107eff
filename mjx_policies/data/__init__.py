"""Episodes in memory and on disk, and what feeds them to a learner."""
