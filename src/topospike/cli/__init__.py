"""The command line ``topospike``: recipes in, run folders out."""
