"""What must hold on a GPU: the same features, losses and gradients, runs that repeat and resume."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import runs
from golden import load_make

import mynah.upstream
from mynah.recipes import extract, pretrain
from mynah.upstream.core import draws, kmeans, modelfolder
from mynah.upstream.core.clauses import check
from mynah.upstream.core.contract import Upstream
from mynah.upstream.store import open_or_extract

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
GPU = torch.device("cuda")


make = load_make()
NAMES = make.names()


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """No TF32, so that the two devices can be compared."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("name", NAMES)
def test_contract_on_a_gpu(name: str) -> None:
    broken = [
        f"{clause.name}: {clause.why}"
        for clause in check(mynah.upstream.build(name).to(GPU))
        if clause.status == "FAIL"
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_the_cpus(name: str) -> None:
    model = make.model(name).freeze()
    data = make.batch(torch.Generator().manual_seed(0))
    here = model(data.wav_BS, data.lengths_B).layers_LBTD
    there = model.to(GPU)(data.wav_BS.to(GPU), data.lengths_B).layers_LBTD
    for layer, (a, b) in enumerate(zip(here, there.cpu(), strict=True)):
        assert (a - b).norm() <= 1e-4 * a.norm(), layer


def loss_and_gradients(
    model: Upstream, name: str, device: torch.device
) -> tuple[float, dict[str, torch.Tensor]]:
    data = make.labelled(model, make.batch(torch.Generator().manual_seed(make.SEED)))
    model.to(device)
    torch.manual_seed(0)
    loss = model.loss(replace(data, wav_BS=data.wav_BS.to(device)))
    loss.total.backward()
    model.after_step(1, 5)
    grads = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
    return loss.total.item(), grads


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_equal_the_cpus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "on_device", lambda generator, device: generator)
    loss, grads = loss_and_gradients(make.model(name), name, torch.device("cpu"))
    other, others = loss_and_gradients(make.model(name), name, GPU)
    assert other == pytest.approx(loss, rel=1e-4)
    assert grads.keys() == others.keys()
    scale = torch.stack([grad.norm() for grad in grads.values()]).norm()
    for key, grad in grads.items():
        assert (grad - others[key]).norm() <= 5e-3 * grad.norm() + 1e-3 * scale, key


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def pretrain_on_gpu(
    corpus: Path, out: Path, name: str, *overrides: str, steps: int = 6, resume: bool = False
) -> None:
    family, _, _ = name.partition("/")
    teacher = None
    if mynah.upstream.get(family).MODEL.needs_teacher:
        taught = mynah.upstream.build(f"{make.TEACHERS.get(family, 'wav2vec2')}/tiny")
        teacher = out.with_name(f"{out.name}-teacher")
        modelfolder.save(taught.freeze(), teacher)
    arguments = pretrain.Args(
        model=name, corpus=(corpus,), out=out, steps=steps, device="cuda", resume=resume,
        overrides=("train.batch_seconds=12", "train.log_every=4", "train.save_every=3", *overrides),
        teacher=None if teacher is None else str(teacher),
    )  # fmt: skip
    assert pretrain.main(arguments) == 0


TRAINED = [name for name in NAMES if not name.startswith("hubert/")]  # labels: see below


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_family_trains(name: str, precision: str, tmp_path: Path) -> None:
    """With the kernels that repeat their bits, which not every operation has."""
    corpus = runs.noise_corpus(tmp_path / "noise", slower=3).folder
    pretrain_on_gpu(corpus, tmp_path / "run", name, f"train.precision={precision}", "train.lr=1e-4")
    assert (tmp_path / "run" / "final").is_dir()


def test_hubert_makes_its_labels_and_trains(tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    pretrain_on_gpu(
        corpus, tmp_path / "run", "hubert/tiny", "train.lr=1e-4", "labels.clusters=[8,8]"
    )


@pytest.mark.parametrize("name", ["mockingjay/tiny", "wav2vec2/tiny", "data2vec/tiny", "apc/tiny"])
def test_runs_repeat_and_resume(name: str, tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    for out in ("one", "two"):
        pretrain_on_gpu(corpus, tmp_path / out, name, "train.lr=1e-3", steps=8)
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    shutil.rmtree(tmp_path / "three" / "final")
    for folder in (tmp_path / "three" / "checkpoints").iterdir():
        if folder.name != "step-00000003":
            shutil.rmtree(folder)
    pretrain_on_gpu(corpus, tmp_path / "three", name, "train.lr=1e-3", steps=8, resume=True)
    one, *others = (
        modelfolder.load(tmp_path / out / "final").state_dict() for out in ("one", "two", "three")
    )
    for other in others:
        for key, value in one.items():
            assert torch.equal(value, other[key]), key


def test_activation_checkpoints_change_nothing(tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    for out, wanted in (("plain", "false"), ("again", "true")):
        pretrain_on_gpu(
            corpus, tmp_path / out, "mockingjay/tiny", "train.lr=1e-3",
            f"train.checkpoint_activations={wanted}",
        )  # fmt: skip
    plain, again = (
        modelfolder.load(tmp_path / x / "final").state_dict() for x in ("plain", "again")
    )
    assert all(torch.allclose(value, again[key], atol=1e-6) for key, value in plain.items())


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_layers_train(tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise").folder
    pretrain_on_gpu(
        corpus, tmp_path / "run", "mockingjay/tiny", "train.lr=1e-3", "train.compile=true"
    )
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in metrics(tmp_path / "run"))


def test_sharded_weights_train_over_nccl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process: what is gathered is whole already, by the same calls as with many."""
    from torch import distributed

    from mynah.recipes.training.distributed import Objective
    from mynah.recipes.training.sharding import full, shard

    for variable, setting in {
        "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29431",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, setting)
    distributed.init_process_group("nccl", device_id=torch.device("cuda", 0))
    try:
        found = []
        for sharded in (False, True):
            model = make.model("mockingjay/tiny").to(GPU)
            objective = Objective(model)
            if sharded:
                shard(objective, model, GPU)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            for step in range(3):
                data = make.batch(torch.Generator().manual_seed(step))
                total, _, _ = objective(replace(data, wav_BS=data.wav_BS.to(GPU)))
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
            found.append({n: full(p).detach().cpu() for n, p in model.named_parameters()})
        for key, value in found[0].items():
            assert torch.allclose(value, found[1][key], rtol=1e-4, atol=1e-4), key
    finally:
        distributed.destroy_process_group()


def test_kmeans_ends_where_the_cpus_does() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(30, 12, generator=generator)
    points = centres[torch.randint(30, (20_000,), generator=generator)]
    points = points + torch.randn(points.shape, generator=generator)
    here = kmeans.fit(points, clusters=30, seed=1)
    there = kmeans.fit(points.to(GPU), clusters=30, seed=1)
    assert there.centroids_KD.device.type == "cuda"
    assert there.inertia == pytest.approx(here.inertia, rel=5e-3)
    again = kmeans.fit(points.to(GPU), clusters=30, seed=1)
    assert torch.equal(again.centroids_KD, there.centroids_KD)


def test_extraction_on_a_gpu_keeps_what_the_cpu_keeps(tmp_path: Path) -> None:
    corpus = runs.noise_corpus(tmp_path / "noise")
    found = []
    for device in ("cpu", "cuda"):
        upstream = mynah.upstream.build("mockingjay/tiny").freeze().to(device)
        items = extract.items_of(corpus.utterances(), upstream.sample_rate)
        with open_or_extract(tmp_path / device, upstream, items, kind="pooled") as reader:
            found.append(reader.pooled([item.id for item in items]))
            assert reader.stats.computed == len(items)
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-4)
