"""P-SpikeSSM's backbone, as its authors' program computes it."""

import jax
import jax.numpy as jnp
from recordings import meta_of, under

from pspike_jax.interop import export_pspikessm, load_pspikessm
from pspike_jax.nn import DPLRSSM


def replay(arrays):
    meta = meta_of(arrays)
    module, variables = load_pspikessm(
        under(arrays, "param/"),
        prenorm=meta["prenorm"],
        norm=meta["norm"],
        residual=meta.get("residual", "R") is not None,
        length=meta["length"],
    )
    noise = 0.5
    if meta["noise"] != "half":
        layers = range(meta["n_layers"])
        noise = [(arrays[f"noise/{i}/0"], arrays[f"noise/{i}/1"]) for i in layers]

    def loss(params, x):
        (y, aux), _ = module.apply(
            variables | {"params": params},
            x,
            noise=noise,
            train=meta["train"],
            capture=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(arrays["loss_weight"] * y), (y, aux["block_output"])

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (params_bar, x_bar), (y, blocks) = grad(variables["params"], jnp.asarray(arrays["input"]))
    results = {"output": y, "grad_input": x_bar}
    results |= {f"grad/{k}": v for k, v in export_pspikessm(module, params_bar).items()}
    results |= {f"block_output/{i}": block for i, block in enumerate(blocks)}
    return results | kernels(module.config, variables["params"]["backbone"]["blocks"])


def kernels(config, blocks):
    ssm = DPLRSSM(
        features=config.d_model,
        d_state=config.d_state,
        shared=config.shared_dynamics,
        two_sided=config.two_sided,
        skip=True,
        dt_min=config.dt_min,
        dt_max=config.dt_max,
        length=config.l_max,
    )
    found = {}
    for name, branch in (("kernel", "ssm"), ("kernel_reverse", "ssm_reverse")):
        for layer in range(config.n_layers if branch in blocks else 0):
            params = jax.tree.map(lambda a, layer=layer: a[layer], blocks[branch])
            found[f"{name}/{layer}"] = ssm.apply({"params": params}, method="kernel")
    return found


SYSTEMS = {"pspikessm": replay}
