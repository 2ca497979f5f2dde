"""Measure: integer counts of what a spiking network does, and what exactly is counted."""
