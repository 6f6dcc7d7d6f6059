"""Models of this package that are pretrained as upstreams are: ``mynah pretrain vc/adain ...``.

``upstream/`` holds what listens; converters and vocoders are trained by the same loop, kept in the
same kind of folder and resumed in the same way, so each of their families is a module with what an
upstream's file has: ``Config`` (or ``config_type(values)``, where variants have settings of their own),
``CONFIGS`` (variant -> config) and ``MODEL``, a subclass of
:class:`~mynah.upstream.core.contract.Upstream` whose ``loss`` is the objective. :func:`register` makes
them known; recipes are in ``conf/pretrain/<family>/<variant>.yaml``.

- ``vc``: a trained converter. As an upstream it is its content code, so that any task can ask what the
  code keeps: ``mynah probe RUN pr ...``.
- ``vocoder``: a vocoder and its discriminators. It has no features.
"""

from __future__ import annotations

from mynah import upstream

FAMILIES = {
    "vc": "mynah.recipes.conversion.trainee",
    "vocoder": "mynah.recipes.conversion.vocoder_trainee",
}


def register() -> None:
    """Make the families of this package known to ``mynah.upstream``; more than once does no harm."""
    for name, module in FAMILIES.items():
        upstream.add(name, module)
