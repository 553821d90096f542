"""tinygrad: training a small network on made-up images, as its documentation does. DEV=CUDA chooses the GPU;
with LRU=0 its own cache of memory is off."""

from tinygrad import Context, Tensor, nn

import given


class Network:
    def __init__(self):
        self.first = nn.Linear(784, 256)
        self.second = nn.Linear(256, 10)

    def __call__(self, x):
        return self.second(self.first(x).relu())


def main() -> None:
    Tensor.manual_seed(1)
    network = Network()
    optimizer = nn.optim.SGD(nn.state.get_parameters(network), lr=0.01)
    inputs, labels = Tensor.randn(512, 784).realize(), Tensor.randint(512, high=10).realize()
    losses = []
    with Context(TRAINING=1):
        for _ in range(given.rounds(60)):
            optimizer.zero_grad()
            loss = network(inputs).sparse_categorical_crossentropy(labels).backward()
            optimizer.step()
            losses.append(loss.item())
    print(losses[0].hex(), losses[-1].hex())


main()
