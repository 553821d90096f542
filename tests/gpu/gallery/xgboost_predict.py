"""XGBoost: a small model answers many small batches of questions, as one that serves requests does."""

import numpy
import xgboost

import given


def main() -> None:
    random = numpy.random.RandomState(1)
    inputs = random.rand(20000, 28).astype(numpy.float32)
    answers = inputs[:, :5].sum(axis=1)
    parameters = {"device": "cpu" if given.CPU else "cuda", "max_depth": 6}
    model = xgboost.train(parameters, xgboost.DMatrix(inputs, label=answers), num_boost_round=20)
    total = 0.0
    for i in range(given.rounds(1500)):
        first = i * 100 % 19000
        total += float(model.predict(xgboost.DMatrix(inputs[first:first + 1000])).sum())
    print(total)


main()
