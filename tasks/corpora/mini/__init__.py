"""The embedded corpus ``mini``: a speech benchmark synthesised on the user's machine."""
