"""One Ray node per data set, through a mapped task group: each map index is a search of its own.

Run it here: `raynode run dags/mapped_search.py`.
"""

from __future__ import annotations

from airflow.sdk import dag, task, task_group

from airflow_provider_raynode import context, ray_node

DATASETS = ["iris", "wine", "breast_cancer"]


def train_model(data, max_depth, min_samples_leaf):
    """One trial: the cross-validated accuracy of a decision tree on one data set."""
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=7)
    run = context()
    run.logger.info("%s: depth %d, leaf %d", run.map_variables["dataset"], max_depth, min_samples_leaf)
    return {"accuracy": float(cross_val_score(tree, data["x"], data["y"], cv=5).mean())}


@dag(schedule=None, tags=["raynode", "example"])
def mapped_search():
    @task_group
    def search(dataset):
        @task
        def load(name):
            from sklearn import datasets

            from airflow_provider_raynode import catalog

            x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
            return catalog.put({"x": x, "y": y})

        return ray_node(
            "tuning",
            python_callable=train_model,
            ray_config="configs/mapped_search.yaml",
            op_kwargs={"data": load(dataset)},
        ).output

    @task
    def compare(results):
        for name, result in zip(DATASETS, results[:], strict=True):
            print(f"{name}: accuracy {result['best_metrics']['accuracy']:.4f} with {result['best_config']}")

    compare(search.expand(dataset=DATASETS))


mapped_search()
