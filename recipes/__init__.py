"""Recipes: what is run. Programs and their configs."""

if __name__ != "mynah.recipes":
    raise ImportError(
        f"this folder is the package mynah.recipes and was imported as {__name__!r}: "
        "install the project (pip install -e .) and write 'import mynah.recipes'"
    )
