"""How the fusion in the package was made: English text, instructions about it, and the training; docs/bundled.md."""
