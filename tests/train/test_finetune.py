"""Starting from a checkpoint: what is copied, what learns, how fast, from when."""

from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from hwr_export.checkpoint import load_checkpoint
from hwr_export.errors import UsageError
from hwr_export.models import build_model
from tests.conftest import TINY, silent, tiny_recipe
from tests.train.test_fit import QUICK, metrics
from train.__main__ import main
from train.finetune import grouped, head_of, parts, set_learning
from train.fit import fit
from train.recipe import FineTuneRecipe
from train.run_directory import LAST

EDGE = ["stem", "blocks.0", "blocks.1", "blocks.2", "classifier"]


def settings(**changes) -> FineTuneRecipe:
    return FineTuneRecipe.model_validate({"checkpoint": "x", **changes})


def learning(network: torch.nn.Module) -> list[str]:
    return [name for name, ms in parts(network).items() if all(p.requires_grad for m in ms for p in m.parameters())]


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("edge", {}, EDGE),
        ("article-cnn", {}, ["features.0", "features.4", "classifier.1", "classifier.4"]),
        ("resnet18", {}, ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
    ],
)
def test_parts_are_ordered_and_cover_every_parameter_once(name: str, config: dict, expected: list[str]) -> None:
    network = build_model(name, 10, config)
    found = parts(network)
    assert list(found) == expected
    assert head_of(network) == expected[-1]
    covered = [id(p) for modules in found.values() for m in modules for p in m.parameters()]
    assert sorted(covered) == sorted(id(p) for p in network.parameters())


def test_by_default_the_head_alone_learns_and_the_rest_stays_bit_for_bit(run_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK, fine_tune={"checkpoint": str(run_dir)})
    fit(recipe, tmp_path / "r", None, resume=False, console=silent())
    before = load_checkpoint(run_dir).module.state_dict()
    after = torch.load(tmp_path / "r" / LAST, weights_only=True)["model"]
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert load_checkpoint(tmp_path / "r").info.parents["start"] == load_checkpoint(run_dir).info.weights.sha256


def test_adapting_batch_norm_moves_statistics_alone(run_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK, fine_tune={"checkpoint": str(run_dir), "batch_norm": "adapt"})
    fit(recipe, tmp_path / "r", None, resume=False, console=silent())
    before = load_checkpoint(run_dir).module.state_dict()
    after = torch.load(tmp_path / "r" / LAST, weights_only=True)["model"]
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed > {"classifier.weight", "blocks.0.bn1.running_mean", "stem.1.running_var"}
    assert not any("running" not in k and "num_batches" not in k and "classifier" not in k for k in changed)


def test_other_labels_get_a_new_head(run_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        data={"name": "chars62", "limit": 6000}, epochs=1, fine_tune={"checkpoint": str(run_dir), "train_from": "all"}
    )
    fit(recipe, tmp_path / "r", None, resume=False, console=silent())
    found = load_checkpoint(tmp_path / "r")
    assert len(found.info.labels) == 62
    assert found.module.classifier.weight.shape[0] == 62
    assert metrics(tmp_path / "r")[0]["validation_accuracy"] > 0.1


def test_parts_learn_slower_below_and_later() -> None:
    network = build_model("edge", 10, TINY["model"]["config"])
    rates = [rate for _, rate in grouped(network, settings(lr_decay=0.5), 0.8)]
    assert rates == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])
    slow = settings(train_from="blocks.1", unfreeze_every=2)
    seen = [set_learning(network, slow, epoch) for epoch in range(8)]
    assert seen[0] == seen[1] == ["classifier"]
    assert seen[2] == seen[3] == EDGE[3:]
    assert seen[4] == seen[7] == EDGE[2:]
    assert learning(network) == EDGE[2:]
    assert network.stem.training is False
    assert network.blocks[2].training is True


def test_a_part_that_is_not_there_is_refused_with_those_that_are(run_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK, fine_tune={"checkpoint": str(run_dir), "train_from": "layer3"})
    with pytest.raises(UsageError, match=r"no part 'layer3'; valid: all, stem, blocks.0, .*, classifier, head"):
        fit(recipe, tmp_path / "r", None, resume=False, console=silent())
    wider = tiny_recipe(**QUICK, model={"name": "edge"}, fine_tune={"checkpoint": str(run_dir)})
    with pytest.raises(UsageError, match="fine-tuning keeps the network"):
        fit(wider, tmp_path / "r", None, resume=False, console=silent())


def test_unfreezing_resumes_to_the_same_weights(run_dir: Path, tmp_path: Path) -> None:
    fine = {"checkpoint": str(run_dir), "train_from": "all", "unfreeze_every": 1}
    recipe = tiny_recipe(**QUICK | {"epochs": 3}, fine_tune=fine)
    fit(recipe, tmp_path / "whole", None, resume=False, console=silent())

    def stop(record: dict) -> None:
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, tmp_path / "parts", None, resume=False, console=silent(), on_epoch=stop)
    fit(recipe, tmp_path / "parts", None, resume=True, console=silent())
    whole, part = (torch.load(tmp_path / n / LAST, weights_only=True)["model"] for n in ("whole", "parts"))
    assert all(torch.equal(whole[k], part[k]) for k in whole)


def test_the_command_keeps_the_network_of_the_checkpoint(run_dir: Path, tmp_path: Path) -> None:
    document = {k: v for k, v in (TINY | QUICK).items() if k != "model"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(document | {"fine_tune": {"train_from": "blocks.2"}}))
    done = CliRunner().invoke(main, ["fine-tune", str(run_dir), str(recipe), "-o", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    info = load_checkpoint(tmp_path / "r").info
    assert info.config == TINY["model"]["config"]
    assert info.recipe["fine_tune"]["checkpoint"] == str(run_dir)
    recipe.write_text(yaml.safe_dump(TINY))
    refused = CliRunner().invoke(main, ["fine-tune", str(run_dir), str(recipe), "-o", str(tmp_path / "s")])
    assert refused.exit_code == 2
    assert "names a model, but fine-tuning keeps that of" in refused.output
