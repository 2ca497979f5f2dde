"""Charts of the page: one module a kind, each from plain data to a figure."""
