"""The projector that reads window after window: AI-STA's and SALMONN's."""

import pytest
import torch

from slam_potsa.model.projectors import WindowQFormer


@pytest.mark.parametrize("frames", [1, 17, 18, 40])
def test_each_window_is_a_token_that_depends_on_it_alone(frames):
    torch.manual_seed(0)
    sizes = {"qformer_layers": 2, "qformer_dim": 16, "qformer_heads": 2, "qformer_dropout": 0.0}
    projector = WindowQFormer(8, 12, **sizes).eval()
    x = torch.randn(2, 60, 8)
    mask = torch.arange(60) < torch.tensor([[frames], [60]])
    whole = projector(x, mask.float())
    alone = projector(x[:1, :frames])
    assert whole.shape == (2, 4, 12) and alone.shape[1] == -(-frames // 17)
    torch.testing.assert_close(whole[:1, : alone.shape[1]], alone)
    assert whole.isfinite().all()  # also of windows without a frame
    changed = x.clone()
    changed[1, 20] += 1.0
    moved = (projector(changed, mask.float()) - whole).abs().amax(2)[1] > 1e-6
    assert moved.tolist() == [False, True, False, False]
