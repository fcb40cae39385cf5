"""One self-contained HTML page for a run, a comparison or a folder of runs: `build_report` and `write_report`.

Styles, scripts, pictures and data stand in the page itself, and its content security policy forbids any request.
Nothing here imports torch.
"""

from glotfuse.html_report.page import build_report, write_report

__all__ = ["build_report", "write_report"]
