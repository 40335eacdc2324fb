"""`accel cosim --train` as a user types it."""

from __future__ import annotations

from accel.cli import main


def test_training_steps_of_a_network(capsys, tmp_path):
    assert main(["cosim", "--network", "digits-cnn", "--train", "--config", "tiny", "--batch", "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.endswith(" 0")]
    stages = [(row[0], row[1]) for row in rows if row[2] == "core"]
    layers = ["conv1", "conv2", "conv3", "conv4", "scores"]
    assert sorted(stages) == sorted((layer, stage) for layer in layers for stage in ("FF", "BP", "WU") if (layer, stage) != ("conv1", "BP"))
    assert {row[0] for row in rows if row[2] == "sore"} == {"conv2.weight", "conv3.weight", "conv4.weight"}
    assert "digits-cnn on tiny, bdwp 2:4, 2 steps of 1: " in out
