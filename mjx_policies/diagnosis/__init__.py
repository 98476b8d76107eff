"""Diagnosis of a run that does not learn, from its data, its weights and its curves."""
