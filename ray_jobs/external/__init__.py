"""Data from outside beside the crawl: reference texts, evaluation sets, labelled texts."""
