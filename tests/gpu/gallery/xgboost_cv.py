"""XGBoost: cross-validation of boosted trees on made-up data, of five folds."""

import numpy
import xgboost

import given


def main() -> None:
    random = numpy.random.RandomState(1)
    inputs = random.rand(20000, 28).astype(numpy.float32)
    labels = inputs[:, :5].sum(axis=1) + 0.3 * random.randn(20000) > 2.5
    parameters = {"device": "cpu" if given.CPU else "cuda", "objective": "binary:logistic",
                  "max_depth": 6}
    found = xgboost.cv(parameters, xgboost.DMatrix(inputs, label=labels),
                       num_boost_round=given.rounds(40), nfold=5, seed=1, as_pandas=False)
    print({name: float(values[-1]) for name, values in found.items()})


main()
