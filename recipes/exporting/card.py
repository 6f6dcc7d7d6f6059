"""The card of an export: what the model is, how to use it, what was checked, what is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.exporting.compare import Heard

USES = {
    "s3prl": """\
Needs mynah (`requirements.txt`) and s3prl. Three ways:

    # 1. any program that uses torch.hub
    upstream = torch.hub.load("{folder}", "customized_upstream", source="local")

    # 2. s3prl in Python
    from s3prl import hub
    hub.customized_upstream = lambda **options: torch.hub.load(
        "{folder}", "customized_upstream", source="local", **options)
    from s3prl.nn import Featurizer, S3PRLUpstream
    upstream = S3PRLUpstream("customized_upstream")

    # 3. s3prl's command line: put the folder in place of its example
    cp -r {folder}/* s3prl/upstream/example/
    python run_downstream.py -m train -u customized_upstream -d DOWNSTREAM -n NAME

`-k FOLDER` names another model folder of mynah. The model is frozen: `-f` trains nothing of it.
Features do not depend on the batch; states of shorter utterances are zero after their last frame.""",
    "hf-challenge": """\
The SUPERB challenge's form of a model: `expert.py` with `UpstreamExpert(ckpt)`, its weights `model.pt`
(TorchScript) and `requirements.txt`. Only torch is needed; push this folder as it is.

    from expert import UpstreamExpert
    upstream = UpstreamExpert("model.pt")
    states = upstream([wav_S, other_S])["hidden_states"]  # each (B, T, D)

An utterance of fewer than {shortest} samples is zero-padded to that many.""",
    "onnx": """\
    import onnxruntime
    session = onnxruntime.InferenceSession("model.onnx")
    (states,) = session.run(["states"], {{"wav": wav_1S}})  # float32 (1, S) -> (L, T, D)

One utterance at a time, unpadded. The file's metadata holds the facts above.""",
    "torch-export": """\
    import torch
    model = torch.export.load("model.pt2").module()
    states_LTD = model(wav_1S)  # float32 (1, S) -> (L, T, D)

One utterance at a time, unpadded. `facts.json` in the archive holds the facts above.""",
    "torchscript": """\
    import torch
    model = torch.jit.load("model.pt")
    states_LTD = model(wav_1S)  # float32 (1, S) -> (L, T, D)

One utterance at a time, unpadded. `facts.json` in the archive holds the facts above.""",
}


def card(
    title: str, *, target: str, facts: Mapping[str, str], heard: Sequence[Heard], allowed: float
) -> str:
    """Return the text of an export's README.

    Args:
        title: name of the folder.
        target: what it was exported as.
        facts: as they are kept with the model.
        heard: the comparison.
        allowed: the difference that it had to stay below.
    """
    length = f"at least {facts['shortest']} samples"
    if "longest" in facts:
        length += f", at most {facts['longest']}"
    ms = 1000 * int(facts["stride"]) / int(facts["sample_rate"])
    rows = {
        "upstream": f"`{facts['upstream']}`, variant `{facts['variant']}`",
        "parameters": f"{int(facts['parameters']):,}",
        "sample rate": f"{facts['sample_rate']} Hz",
        "stride": f"{facts['stride']} samples = {ms:g} ms",
        "hidden states": f"{facts['layers']} of width {facts['dim']}, as SUPERB counts them",
        "an utterance": length,
        "fingerprint": f"`{facts['fingerprint']}`",
        "read from": f"`{facts['source']}`",
        "exported by": f"mynah {facts['mynah']}, torch {facts['torch']}",
    }
    use = USES[target].format(folder=title, shortest=facts["shortest"])
    return "\n".join(
        [
            f"# {title}",
            "",
            f"A speech upstream, exported by `mynah export --as {target}`.",
            "",
            "| what | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in rows.items()),
            "",
            "## Use",
            "",
            use,
            "",
            "## Checked",
            "",
            f"Loaded back and held against the upstream itself (allowed {allowed:.0e} relative):",
            "",
            "| samples | frames | largest relative difference of a hidden state |",
            "|---|---|---|",
            *(f"| {one.samples} | {one.frames} | {one.difference:.1e} |" for one in heard),
            "",
            "## Licence",
            "",
            "Not known to the program that wrote this. State here the licence of the weights, and what",
            "they were trained on.",
            "",
        ]
    )
