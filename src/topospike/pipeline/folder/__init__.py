"""Pipeline: a run folder, its record, what stages wrote into it, and who may write."""
