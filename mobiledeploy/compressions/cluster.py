"""Weight clustering: each layer has only a few different weights, so that files compress.

S. Han et al. 2015, Deep Compression, https://arxiv.org/abs/1510.00149, section 3: a layer's weights
are grouped by k-means into n clusters and share their centroid, ``w_ij = c_k(i,j)``; the gradient
of a centroid is the sum of those of its weights. Zero weights, as after pruning, stay zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow_model_optimization as tfmot

from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import Model
from mobiledeploy.training import wrapping

PRESERVES = False

MOST = 256
"""More clusters than int8 has codes have no benefit."""


def wrap(
    model: Model, amount: float, steps: int, instructions: Callable[[Model], int] | None = None
) -> Model:
    """The model with its convolutions and fully connected layers wrapped for clustering.

    Depthwise kernels stay as they are: clustering them costs accuracy that training does not
    recover.

    Args:
        model: of tf_keras; its layers go into the new model and share their weights with it.
        amount: number of clusters in each layer, 2 to `MOST`.
        steps: batches of the training that follows; clustering does not depend on it.
        instructions: never given, since equal weights save none.
    """
    del steps, instructions
    if not (2 <= amount <= MOST and amount == int(amount)):
        raise UsageError(f"--cluster {amount:g} is not within 2 to {MOST}", "try --cluster 16")
    keras = tfmot.clustering.keras
    return wrapping.each_weighted_layer(
        model,
        lambda layer: keras.cluster_weights(
            layer,
            number_of_clusters=int(amount),
            cluster_centroids_init=keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=True,
        ),
    )


def callbacks() -> Sequence[Any]:
    """No callbacks are needed."""
    return ()


def strip(model: Model) -> Model:
    """The plain model again, each weight at its centroid."""
    return Model(model.framework, tfmot.clustering.keras.strip_clustering(model.handle))
