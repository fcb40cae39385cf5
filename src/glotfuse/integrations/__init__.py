"""Bridges to tools that people already run. Each needs its own extra, which is imported only when it is used."""
