"""Find the learning rate and size of a network whose every candidate is trained by two workers.

Each trial of the search is a distributed training: PyTorch averages the gradients of its two workers, the scheduler
stops the trials that fall behind. Run it here, with no services at all: `raynode run dags/tune_over_train.py` (needs
PyTorch and scikit-learn).
"""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_raynode import catalog, context, get_checkpoint, ray_node, report

EPOCHS = 12
BATCH_SIZE = 32


def make_network(hidden_size):
    """Return a network for pictures of 8 x 8 points."""
    from torch import nn

    return nn.Sequential(nn.Linear(64, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 10))


def share_right(network, x, y):
    """Return the share of the digits that the network reads right."""
    import torch

    with torch.no_grad():
        return float((network(torch.as_tensor(x)).argmax(dim=1) == torch.as_tensor(y)).float().mean())


def train_network(data, learning_rate, hidden_size):
    """One worker of one trial: trains on its share of the rows; no Ray in here."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    run = context()
    torch.manual_seed(7)
    network = make_network(hidden_size)
    begin = 0
    if saved := get_checkpoint():  # a trial that lost a worker, or that a retry goes on with
        network.load_state_dict(saved["weights"])
        begin = saved["epoch"] + 1
    averaged = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(averaged.parameters(), lr=learning_rate)
    x = torch.as_tensor(data["x_train"][run.rank :: run.world_size].copy())
    y = torch.as_tensor(data["y_train"][run.rank :: run.world_size].copy())
    for epoch in range(begin, EPOCHS):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(averaged(x[rows]), y[rows]).backward()
            optimizer.step()
        accuracy = share_right(network, data["x_valid"], data["y_valid"])
        # Every worker reports; the numbers and the checkpoint of the first count.
        checkpoint = {"weights": network.state_dict(), "epoch": epoch} if run.rank == 0 else None
        report({"accuracy": accuracy}, checkpoint=checkpoint)


@dag(schedule=None, tags=["raynode", "example"])
def tune_over_train():
    @task
    def generate_dataset():
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        x = (x / 16).astype("float32")
        x_rest, x_test, y_rest, y_test = train_test_split(x, y, test_size=0.25, random_state=7, stratify=y)
        # 1010 rows to train on: as many for each of the two workers, so that both make the same number of steps.
        x_train, x_valid, y_train, y_valid = train_test_split(
            x_rest, y_rest, train_size=1010, random_state=7, stratify=y_rest
        )
        parts = {"x_train": x_train, "y_train": y_train, "x_valid": x_valid, "y_valid": y_valid}
        return catalog.put({**parts, "x_test": x_test, "y_test": y_test})  # a reference goes into XCom, not the data

    @task
    def evaluate(dataset, tuned):
        data, best = catalog.load(dataset), catalog.load(tuned["outputs"]["checkpoint"])
        network = make_network(tuned["best_config"]["hidden_size"])
        network.load_state_dict(best["weights"])
        right = share_right(network, data["x_test"], data["y_test"])
        print(f"best of the trainings:      {tuned['best_config']}")
        print(f"test digits that it misread: {round((1 - right) * len(data['y_test']))} of {len(data['y_test'])}")
        return right

    dataset = generate_dataset()
    tuned = ray_node(
        "ray_tuned_training",
        python_callable=train_network,
        ray_config="configs/tune_over_train.yaml",
        op_kwargs={"data": dataset},  # references are loaded before the call
    )
    evaluate(dataset, tuned.output)


tune_over_train()
