"""Names, resource classes, scripts and families of languages."""
