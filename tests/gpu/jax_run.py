"""JAX trains a small network; prints losses and a digest of the parameters."""

import hashlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy


def main() -> int:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    keys = jax.random.split(jax.random.PRNGKey(1), 4)
    sizes = (784, 512, 256, 10)
    parameters = [(jax.random.normal(key, (m, n)) * m**-0.5, jnp.zeros(n))
                  for key, m, n in zip(keys, sizes, sizes[1:])]
    inputs = jax.random.normal(keys[3], (256, 784))
    labels = jnp.arange(256) % 10

    def loss_of(parameters, inputs, labels):
        for weights, bias in parameters[:-1]:
            inputs = jax.nn.relu(inputs @ weights + bias)
        logits = inputs @ parameters[-1][0] + parameters[-1][1]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(labels.size), labels])

    @jax.jit
    def step(parameters, inputs, labels):
        loss, gradients = jax.value_and_grad(loss_of)(parameters, inputs, labels)
        return loss, jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradients)

    step(parameters, inputs, labels)[0].block_until_ready()  # compiles
    losses = []
    begin = time.perf_counter()
    for i in range(steps):
        loss, parameters = step(parameters, jnp.roll(inputs, i, axis=0), jnp.roll(labels, i))
        losses.append(float(loss))
    seconds = time.perf_counter() - begin
    print(jax.devices()[0].platform, losses[0].hex(), losses[-1].hex())
    print(hashlib.sha256(b"".join(numpy.asarray(p).tobytes() for p in jax.tree.leaves(parameters)))
          .hexdigest())
    print(f"jax_run: seconds {seconds:.6f}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
