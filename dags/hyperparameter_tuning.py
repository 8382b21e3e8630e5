"""Tune a neural network on the handwritten digits that ship with scikit-learn, and compare it with the untuned one.

Three tasks around one Ray node. Run it here, with no services at all: `raynode run dags/hyperparameter_tuning.py`.
"""

from __future__ import annotations

import warnings

from airflow.sdk import dag, task

from airflow_provider_raynode import catalog, pickled, ray_node, report

EPOCHS = 40


def make_network(learning_rate=0.001, batch_size=200, hidden_size=100):
    """Return a network that trains epoch by epoch; the defaults are scikit-learn's own."""
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        hidden_layer_sizes=(hidden_size,), learning_rate_init=learning_rate, batch_size=batch_size, random_state=7
    )


def train_epochs(network, data, epochs=EPOCHS):
    """Train, and after each epoch yield the accuracy on the validation part."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a diverging trial is a result too
        for _ in range(epochs):
            network.partial_fit(data["x_train"], data["y_train"], classes=range(10))
            yield float(network.score(data["x_valid"], data["y_valid"]))


def train_model(data, learning_rate, batch_size, hidden_size):
    """One trial: reports after each epoch, so that the scheduler can stop it early; no Ray in here."""
    network = make_network(learning_rate, batch_size, hidden_size)
    for accuracy in train_epochs(network, data):
        report({"accuracy": accuracy, "model": network})


@dag(schedule=None, tags=["raynode", "example"])
def hyperparameter_tuning():
    @task
    def generate_dataset():
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        x_rest, x_test, y_rest, y_test = train_test_split(x / 16, y, test_size=0.25, random_state=7, stratify=y)
        x_train, x_valid, y_train, y_valid = train_test_split(
            x_rest, y_rest, test_size=0.25, random_state=7, stratify=y_rest
        )
        parts = {"x_train": x_train, "y_train": y_train, "x_valid": x_valid, "y_valid": y_valid}
        return catalog.put({**parts, "x_test": x_test, "y_test": y_test})  # a reference goes into XCom, not the data

    @task
    def evaluate(dataset, tuned):
        data = catalog.load(dataset)
        baseline = make_network()
        list(train_epochs(baseline, data))
        model = catalog.load(tuned["outputs"]["model"])
        return {
            "baseline": float(baseline.score(data["x_test"], data["y_test"])),
            "tuned": float(model.score(data["x_test"], data["y_test"])),
        }

    @task
    def print_comparison(scores, tuned):
        gain = scores["tuned"] - scores["baseline"]
        print(f"best hyperparameters: {tuned['best_config']}")
        print(f"untuned baseline: {scores['baseline']:.4f} of the test digits right")
        print(f"tuned model:      {scores['tuned']:.4f} of the test digits right, {gain:+.4f} over the baseline")
        return gain

    dataset = generate_dataset()
    tuned = ray_node(
        "ray_hyperparameter_tuning",
        python_callable=train_model,
        ray_config="configs/ray_tune.yaml",
        op_kwargs={"data": dataset},  # references are loaded before the call
        returns=[pickled("model")],
    )
    print_comparison(evaluate(dataset, tuned.output), tuned.output)


hyperparameter_tuning()
