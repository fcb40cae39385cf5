"""A recipe made into a run folder: trained, measured, compared."""
