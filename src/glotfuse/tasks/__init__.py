"""Tasks: examples, columns, labels and languages, from named data sets or the user's own files."""

from glotfuse.tasks.examples import Example, LoadReport, Split, sample
from glotfuse.tasks.files import LAYOUTS, FileSource, Layout
from glotfuse.tasks.hub import HubDataset, HubSource
from glotfuse.tasks.registry import get_task, task_from_files, task_names
from glotfuse.tasks.splits import SPLIT_NAMES, Source, split_name
from glotfuse.tasks.task import Task

__all__ = [
    "LAYOUTS",
    "SPLIT_NAMES",
    "Example",
    "FileSource",
    "HubDataset",
    "HubSource",
    "Layout",
    "LoadReport",
    "Source",
    "Split",
    "Task",
    "get_task",
    "sample",
    "split_name",
    "task_from_files",
    "task_names",
]
