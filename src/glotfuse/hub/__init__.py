"""A run on the hub, with its model card."""
