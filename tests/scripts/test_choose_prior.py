"""What samples share with the image whose latents they were given."""

import torch

from bench.contract import Noise
from bench.data import make_dataset
from methods.cvdvae.weights import load_weights
from scripts.choose_prior import complete
from scripts.grow_vdvae import read_shape


@torch.no_grad()
def test_more_of_the_latents_give_more_of_the_image() -> None:
    model = read_shape("small64").eval()
    load_weights(model, "prior64.safetensors")
    dataset = make_dataset({"name": "synthfaces", "size": 64, "split": "val"})
    x = torch.stack([torch.from_numpy(dataset.load(i)) for i in range(2)]).permute(0, 3, 1, 2) / 255

    def drawn(given: int, x: torch.Tensor) -> tuple[torch.Tensor, dict[int, float]]:
        return complete(model, x, 2, given, 0.8, Noise(0, ["a", "b"], range(2)), "mean")

    found = {given: drawn(given, x) for given in (0, 8, 16, 64)}
    errors = [float((samples - x[:, None]).square().mean()) for samples, _ in found.values()]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3
    torch.testing.assert_close(found[0][0], drawn(0, 1 - x)[0])  # nothing is known of the image
    assert found[0][1] == {}
    assert list(found[8][1]) == [1, 4, 8]

    generator = torch.Generator().manual_seed(0)
    _, kls, _ = model.infer(x, lambda l, q: q.draw(torch.randn(q.mean.shape, generator=generator)))
    rate = float(torch.stack(kls).sum(0).mean()) / x[0].numel() / 0.6931
    assert abs(sum(found[64][1].values()) - rate) < 0.1 * rate  # other latents, nearly the same rate
