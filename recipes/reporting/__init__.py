"""The HTML report: embeddings kept by probes, figures, and the page itself."""
