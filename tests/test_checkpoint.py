import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hwr_export.checkpoint import (
    CHECKPOINT_JSON,
    CheckpointInfo,
    load_checkpoint,
    load_into,
    load_state,
    module_from_factory,
    save_checkpoint,
    weights_bytes,
    weights_file,
)
from hwr_export.errors import CheckpointError
from hwr_export.models import build_model
from hwr_export.spec import Preprocessing


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path, seed=0)


def save(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    weights = weights_bytes(build_model("edge", 10))
    info = CheckpointInfo(
        name="made",
        kind="architecture",
        architecture="edge",
        labels="0123456789",
        preprocessing=Preprocessing(),
        parameters=1,
        weights=weights_file(weights),
    )
    return save_checkpoint(folder, info, weights)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(saved: Path) -> None:
    torch.manual_seed(0)
    expected = build_model("edge", 10).state_dict()
    loaded = load_checkpoint(saved.parent)
    assert not loaded.module.training
    for name, tensor in loaded.module.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])


def test_saving_again_keeps_one_weights_file(saved: Path) -> None:
    save(saved.parent, seed=1)
    assert len(list(saved.parent.glob("weights-*"))) == 1
    load_checkpoint(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vgg"}, "no architecture 'vgg'; known: article-cnn, edge"),
        ({"architecture": "article-cnn"}, "do not fit ArticleCNN"),
        ({"labels": "01"}, r"classifier.bias is \(10,\), expected \(2,\)"),
        ({"config": {"channels": [1, 2]}}, "does not take the configuration"),
        ({"config": {"depth": 3}}, "does not take the configuration"),
        ({"schema": 2}, "schema"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(saved: Path, changes: dict[str, object], message: str) -> None:
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


def test_damaged_weights_are_refused(saved: Path) -> None:
    weights = next(saved.parent.glob("weights-*"))
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"is not the file that checkpoint\.json was written with"):
        load_checkpoint(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(saved)


def test_missing_and_malformed_json(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "nowhere")
    (tmp_path / CHECKPOINT_JSON).write_text("{")
    with pytest.raises(CheckpointError, match="not a checkpoint this version can read"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
def test_state_dicts_of_users_are_read(tmp_path: Path, wrap) -> None:
    state = build_model("edge", 10).state_dict()
    torch.save(wrap(state), tmp_path / "w.pt")
    assert load_state(tmp_path / "w.pt").keys() == state.keys()
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    assert load_state(tmp_path / "w.safetensors").keys() == state.keys()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04cut"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_broken_weights_of_users_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_state(path)


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"w": Evil()}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_state(tmp_path / "w.pt")
    assert not (tmp_path / "owned").exists()


def test_load_into_names_each_kind_of_problem() -> None:
    module = build_model("edge", 10)
    state = module.state_dict()
    state["extra"] = state.pop("stem.0.weight")
    with pytest.raises(CheckpointError, match=r"stem.0.weight is missing; extra is not in the network \(2 tensor"):
        load_into(module, state, "w.pt")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_colon", "package.module:factory"),
        ("no_such_module:make", "No module named"),
        ("os.path:no_such", "no_such"),
        ("builtins:dict", "returned dict, expected a torch.nn.Module"),
    ],
)
def test_factories_that_make_no_network(factory: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        module_from_factory(factory)
