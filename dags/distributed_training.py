"""Train a network on the handwritten digits that ship with scikit-learn, on two workers at a time.

Each worker trains on its share of the rows, PyTorch averages their gradients, and the first reports the accuracy and a
checkpoint after each epoch: a worker, or the whole job, that is killed meanwhile goes on from there. Run it here, with
no services at all: `raynode run dags/distributed_training.py` (needs PyTorch and scikit-learn).
"""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_raynode import catalog, context, get_checkpoint, ray_node, report

EPOCHS = 20
BATCH_SIZE = 32


def make_network():
    """Return a network for pictures of 8 x 8 points."""
    from torch import nn

    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def share_right(network, x, y):
    """Return the share of the digits that the network reads right."""
    import torch

    with torch.no_grad():
        return float((network(torch.as_tensor(x)).argmax(dim=1) == torch.as_tensor(y)).float().mean())


def train_network(data, learning_rate):
    """One worker of the training; no Ray in here."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    run = context()
    torch.manual_seed(7)
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    begin = 0
    if saved := get_checkpoint():
        network.load_state_dict(saved["weights"])
        optimizer.load_state_dict(saved["optimizer"])
        begin = saved["epoch"] + 1
    averaged = DistributedDataParallel(network)
    x = torch.as_tensor(data["x_train"][run.rank :: run.world_size].copy())
    y = torch.as_tensor(data["y_train"][run.rank :: run.world_size].copy())
    for epoch in range(begin, EPOCHS):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        losses = []
        for rows in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(averaged(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        accuracy = share_right(network, data["x_valid"], data["y_valid"])
        # Every worker reports; the numbers and the checkpoint of the first count.
        report(
            {"accuracy": accuracy, "loss": sum(losses) / len(losses)},
            checkpoint={"weights": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch},
        )


@dag(schedule=None, tags=["raynode", "example"])
def distributed_training():
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
    def evaluate(dataset, trained):
        data, best = catalog.load(dataset), catalog.load(trained["outputs"]["checkpoint"])
        network = make_network()
        network.load_state_dict(best["weights"])
        right = share_right(network, data["x_test"], data["y_test"])
        print(f"best epoch: {best['epoch'] + 1} of {EPOCHS}, by the accuracy on the validation part")
        print(f"test accuracy: {right:.4f} ({round((1 - right) * len(data['y_test']))} digits misread)")
        return right

    dataset = generate_dataset()
    trained = ray_node(
        "ray_distributed_training",
        python_callable=train_network,
        ray_config="configs/ray_train.yaml",
        op_kwargs={"data": dataset, "learning_rate": 0.005},  # references are loaded before the call
    )
    evaluate(dataset, trained.output)


distributed_training()
