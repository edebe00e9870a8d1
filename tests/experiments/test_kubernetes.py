"""The Job of experiments/kubernetes: its parts name each other, and its command is one of ours."""

import json
from pathlib import Path

import pytest

import experiments.__main__ as experiments
from experiments.training.processes import COORDINATOR, COUNT, INDEX, find
from experiments.training.train import LOST, STOPPED

yaml = pytest.importorskip("yaml")
FILE = Path(__file__).parents[2] / "experiments/kubernetes/train.yaml"


def test_the_pods_of_the_job_find_each_other(capsys):
    service, job = yaml.safe_load_all(FILE.read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name = job["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {"job-name": name}
    assert service["metadata"]["name"] == pod["subdomain"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    pods = job["spec"]["completions"]
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["parallelism"] == pods
    found = [find(environment | {"JOB_COMPLETION_INDEX": str(index)}) for index in range(pods)]
    assert [(each.count, each.index) for each in found] == [(pods, index) for index in range(pods)]
    assert {each.coordinator for each in found} == {f"{name}-0.{pod['subdomain']}:8476"}
    assert found[0].source == f"{COORDINATOR}, {COUNT} and JOB_COMPLETION_INDEX" and INDEX not in environment
    rules = [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules}
    assert codes == {"FailJob": [2], "Ignore": [LOST, STOPPED]} and pod["restartPolicy"] == "Never"
    assert {rule["onExitCodes"]["containerName"] for rule in rules} == {container["name"]}
    assert container["command"][:2] == ["nemojax", "experiments"]
    assert experiments.main([*container["command"][2:], "--print-settings"]) == 0
    assert json.loads(capsys.readouterr().out)["distributed"] is True
