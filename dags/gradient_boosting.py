"""Train one LightGBM model on two workers, from parquet, to find malignant tumours; the data ships with scikit-learn.

Each worker gets half of the rows, and LightGBM builds one model of both. Run it here, with no services at all:
`raynode run dags/gradient_boosting.py`.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_raynode import catalog, context, get_checkpoint, lightgbm_callback, pickled, ray_node

ROUNDS = 60
TARGET = "malignant"


def train_model(train, validation, rounds=ROUNDS):
    """One worker: plain LightGBM on its rows. A training that was cut off goes on from its last checkpoint."""
    import lightgbm

    def dataset(rows, **more):
        frame = rows.to_pandas()  # for data that does not fit into memory: rows.iter_batches(…)
        return lightgbm.Dataset(frame.drop(columns=TARGET), frame[TARGET], **more)

    so_far = get_checkpoint()
    data = dataset(train)
    model = lightgbm.train(
        {"objective": "binary", "metric": "auc", "seed": 7, "verbose": -1, **context().lightgbm_params()},
        data,
        num_boost_round=rounds - (so_far.current_iteration() if so_far else 0),
        valid_sets=[dataset(validation, reference=data)],
        valid_names=["validation"],
        init_model=so_far,
        callbacks=[lightgbm_callback(metrics={"auc": "validation-auc"}, checkpoint_every=20)],
    )
    return {"model": model}


@dag(schedule=None, tags=["raynode", "example"])
def gradient_boosting():
    @task(multiple_outputs=True)
    def split_patients():
        from sklearn.datasets import load_breast_cancer
        from sklearn.model_selection import train_test_split

        frame = load_breast_cancer(as_frame=True).frame.rename(columns={"target": TARGET})
        frame[TARGET] = 1 - frame[TARGET]  # there, 0 is malignant
        rest, test = train_test_split(frame, test_size=0.25, random_state=7, stratify=frame[TARGET])
        train, validation = train_test_split(rest, test_size=0.2, random_state=7, stratify=rest[TARGET])
        parts = {"train": train, "validation": validation, "test": test}
        return {name: catalog.put(part) for name, part in parts.items()}  # each a parquet file

    @task
    def examine(test_ref, trained):
        test, model = catalog.load(test_ref), catalog.load(trained["outputs"]["model"])
        suspected = model.predict(test.drop(columns=TARGET)) > 0.2  # a missed tumour is worse than another look
        malignant = test[TARGET] == 1
        found, missed = int((suspected & malignant).sum()), int((~suspected & malignant).sum())
        alarms = int((suspected & ~malignant).sum())
        print(f"of {found + missed} malignant tumours the model found {found} and missed {missed};")
        print(f"of {int((~malignant).sum())} harmless ones it suspected {alarms}")
        return {"found": found, "missed": missed, "false_alarms": alarms}

    patients = split_patients()
    trained = ray_node(
        "train_on_two_workers",
        python_callable=train_model,
        ray_config="configs/gradient_boosting.yaml",
        op_kwargs={"train": patients["train"], "validation": patients["validation"]},
        returns=[pickled("model")],
    )
    examine(patients["test"], trained.output)


gradient_boosting()
