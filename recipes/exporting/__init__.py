"""Parts of ``mynah export``: a model for other programs."""
