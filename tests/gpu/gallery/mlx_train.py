"""MLX: training a small network on made-up data, as its documentation does."""

import mlx.core
from mlx import nn, optimizers

import given


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(784, 512), nn.Linear(512, 512), nn.Linear(512, 10)]

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = mlx.core.maximum(layer(x), 0.0)
        return self.layers[-1](x)


def loss_of(network, inputs, labels):
    return nn.losses.cross_entropy(network(inputs), labels, reduction="mean")


def main() -> None:
    mlx.core.random.seed(1)
    network = Network()
    optimizer = optimizers.SGD(learning_rate=0.1)
    step = nn.value_and_grad(network, loss_of)
    inputs = mlx.core.random.normal((512, 784))
    labels = mlx.core.random.randint(0, 10, (512,))
    losses = []
    for _ in range(given.rounds(1500)):
        loss, gradients = step(network, inputs, labels)
        optimizer.update(network, gradients)
        mlx.core.eval(network.parameters(), optimizer.state)
        losses.append(loss.item())
    print(mlx.core.default_device(), losses[0].hex(), losses[-1].hex())


main()
