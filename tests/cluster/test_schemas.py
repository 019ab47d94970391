"""The files for Kubernetes and SkyPilot, which are not run, against the schemas of packages where those are there."""

import pytest
import yaml
from support.scripts import ROOT


def content(name: str) -> dict:
    return yaml.safe_load((ROOT / "cluster" / name).read_text())


def test_both_are_yaml_and_run_the_training():
    job, task = content("kubernetes.yaml"), content("skypilot.yaml")

    assert job["kind"] == "TrainJob"
    for words in (" ".join(job["spec"]["trainer"]["args"]), task["run"]):
        assert "train.py" in words
        assert "--resume" in words


def test_kubernetes_by_kubeflows_models():
    models = pytest.importorskip("kubeflow_trainer_api.models")
    job = content("kubernetes.yaml")

    assert models.TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job  # what it doesn't know it would drop


def test_skypilot_by_its_schemas():
    schemas = pytest.importorskip("sky.utils.schemas")
    jsonschema = pytest.importorskip("jsonschema")
    task = content("skypilot.yaml")

    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())
    for mount in task["file_mounts"].values():
        jsonschema.validate(mount, schemas.get_storage_schema())
