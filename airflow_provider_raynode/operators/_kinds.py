"""The kinds of a node's work, in the words of its tasks and messages."""

from __future__ import annotations

from typing import Literal

from airflow_provider_raynode.config.ray_config import WorkKind

# The execution task of a node by the kind of its work: the word for it in the node's attributes and task ids.
ExecutionName = Literal["tune", "train", "run"]
EXECUTIONS: dict[WorkKind, ExecutionName] = {"search": "tune", "training": "train", "function": "run", "map": "run"}
# A config that is a template or another task's output is known when the node runs.
UNKNOWN_EXECUTION: ExecutionName = "tune"
OPERATORS: dict[WorkKind, str] = {
    "search": "RayTuneOperator",
    "training": "RayTrainOperator",
    "function": "RayTaskOperator",
    "map": "RayTaskOperator",
}
# What a config of the kind has, for the message that it is another one.
SECTIONS: dict[WorkKind, str] = {
    "search": "its config has ray_tune",
    "training": "its config has ray_train and no ray_tune",
    "function": "its config has none of ray_tune, ray_train and ray_map",
    "map": "its config has ray_map",
}
# What a retry does after a failed attempt.
GOES_ON: dict[WorkKind, str] = {
    "search": "goes on with its search",
    "training": "goes on with its training",
    "function": "starts the function anew",
    "map": "goes on with its map",
}
