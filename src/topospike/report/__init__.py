"""STAGE 6: one page that shows a run, made from the files of its folder alone."""

from topospike.report.render import write_report as write_report

__all__ = ["write_report"]
