from __future__ import annotations

import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.sources._inputs import require_scores


@pytest.mark.parametrize("ranks", [[2, 2], [4], [2, None], []])
@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_a_softmax_is_for_one_row_of_scores(output, ranks) -> None:
    with pytest.raises(InputError, match=f"--output {output} is for a model with one row"):
        require_scores(output, ranks)
    require_scores(output, [2])
    require_scores(output, [None])
    require_scores("model", ranks)
