"""What the importers of official corpora share: layouts, rows, published sizes, trials."""
