"""The web page of ``mynah demo``: what it can do, how it looks, and what it refuses."""
