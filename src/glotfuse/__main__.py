"""`python -m glotfuse`, which launchers of several processes can start."""

from glotfuse.cli.main import main

main()
