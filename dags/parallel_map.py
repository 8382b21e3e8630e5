"""How far can a model's accuracy be trusted? Train it on 400 resamples of the data in parallel, and say the interval.

The data are the breast tumours that ship with scikit-learn. Run it here, with no services at all:
`raynode run dags/parallel_map.py`.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_raynode import catalog, ray_node

RESAMPLES = 400


def accuracy_of_resample(seed, patients):
    """One item: train on a sample with replacement, and test on the patients that are not in it; no Ray in here."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    x, y = patients["x"], patients["y"]
    drawn = np.random.default_rng(seed).integers(0, len(x), len(x))
    others = np.setdiff1d(np.arange(len(x)), drawn)
    mean, deviation = x[drawn].mean(axis=0), x[drawn].std(axis=0)
    model = LogisticRegression(max_iter=500).fit((x[drawn] - mean) / deviation, y[drawn])
    return float(model.score((x[others] - mean) / deviation, y[others]))


@dag(schedule=None, tags=["raynode", "example"])
def parallel_map():
    @task
    def load_patients():
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True)
        return catalog.put({"x": x, "y": y})  # a reference goes into XCom, not the data

    @task
    def say_how_sure(resamples):
        import numpy as np

        accuracies = catalog.load(resamples["results"])  # in the order of the seeds
        low, high = np.percentile(accuracies, [2.5, 97.5])
        mean = float(np.mean(accuracies))
        print(f"{len(accuracies)} resamples: the model tells {mean:.1%} of unseen tumours right,")
        print(f"and in 95 of 100 samples of patients between {low:.1%} and {high:.1%}")
        return {"accuracy": mean, "low": float(low), "high": float(high)}

    resamples = ray_node(
        "ray_resamples",
        python_callable=accuracy_of_resample,
        ray_config="configs/ray_map.yaml",
        op_kwargs={"seed": list(range(RESAMPLES)), "patients": load_patients()},
    )
    say_how_sure(resamples.output)


parallel_map()
