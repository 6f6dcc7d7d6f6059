"""``python -m mynah`` is the ``mynah`` command."""

from mynah.recipes.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
