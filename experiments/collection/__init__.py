"""Collecting demonstrations: experts and people whose episodes become datasets."""
