from __future__ import annotations

import pytest
import tf_keras

from mobiledeploy.frameworks import recurrent

layers = tf_keras.layers


@pytest.mark.slow
def test_layers_of_few_steps_are_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "MOST_STEPS", 4)
    rows, open_ = layers.Input((recurrent.MOST_STEPS, 4)), layers.Input((None, 4))
    long_rows = layers.Input((recurrent.MOST_STEPS + 1, 4))
    few, many, any_, not_called = (layers.GRU(2) for _ in range(4))
    both = layers.Bidirectional(layers.LSTM(2))
    inner = tf_keras.Model(rows, [few(rows), both(rows)])
    ends = [*inner(rows), many(long_rows), any_(open_)]
    model = tf_keras.Model([rows, long_rows, open_], ends)
    model.not_called = not_called
    recurrent.unroll(model)
    assert few.unroll and both.forward_layer.unroll and both.backward_layer.unroll
    assert not (many.unroll or any_.unroll or not_called.unroll)
