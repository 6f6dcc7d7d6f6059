"""What to say where a metric needs a package of the extra ``audio``."""


def missing(what: str, package: str) -> ValueError:
    """Return the error for a metric whose package is not installed.

    Args:
        what: the metric or analysis.
        package: what computes it, as it is known to users.
    """
    return ValueError(
        f"{what} is computed by the package {package}, which is not installed: "
        "pip install 'mynah[audio]'"
    )
