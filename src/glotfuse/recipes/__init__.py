"""What a run is made from: sections, YAML files, and whether they fit together."""
