"""Pictures of an inspection, each with its data as JSON. Reads plain data only; matplotlib is imported when used."""

from glotfuse.plotting.fonts import missing_scripts
from glotfuse.plotting.pictures import FORMATS, draw_inspection

__all__ = ["FORMATS", "draw_inspection", "missing_scripts"]
