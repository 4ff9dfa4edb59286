from types import SimpleNamespace

import numpy as np
import tf_keras

from mobiledeploy.objectives import classification


def test_the_loss_is_keras_own_cross_entropy():
    dice = np.random.default_rng(0)
    scores = dice.dirichlet(np.ones(5), 7).astype(np.float32)
    spec = SimpleNamespace(classes=5)
    truth = classification.encoded((np.arange(7) % 5,), spec)
    for smoothing in (0.0, 0.1):
        (loss,) = classification.losses(SimpleNamespace(label_smoothing=smoothing))
        expected = tf_keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
        np.testing.assert_allclose(loss(truth, scores).numpy().mean(), expected(truth, scores))
