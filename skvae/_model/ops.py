"""The fast kernels, each beside a plain version of it.

Only this module makes torch's private calls. Where torch lacks one, the plain version takes its place.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "adam_",
    "bounded_log_prob",
    "convolve_and_pool",
    "draw",
    "dropout_mask",
    "forward_mode",
    "gradients",
    "keep_freed_memory",
    "network_normal_log_prob",
    "normal_log_prob",
    "std_and_log",
    "window_index",
]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

# The bound of a posterior's log standard deviation on either side: far beyond any useful posterior under N(0, I), and
# small enough that squares fit in float32.
_LARGEST_LOG_STD = 15.0

# Half a logit counts as no smaller.
_SMALLEST_HALF = 1e-30

# Logits below this size are near 0; and what float32 can take the exponential of.
_NEAR = 0.08
_LARGEST_EXPONENT = 80.0

# The smallest standard deviation of a softplus posterior.
_SMALLEST_STD = 1e-6

# The largest block that glibc keeps, by default.
_LARGEST_KEPT_ALLOCATION = (1 << 25) - (1 << 16)

# Entries of the convolution's output that are held at once: small enough for the caches.
_CONVOLUTION_ENTRIES = 1 << 20


def plain_select(values: Tensor, by: Tensor, threshold: float) -> Tensor:
    """Return `values` where `by` is above `threshold`, and 0 elsewhere."""
    return values * (by > threshold)


def plain_normal_log_prob(x: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Return what `normal_log_prob` does."""
    return -0.5 * ((x - location) / scale).square() - scale.log() - _HALF_LOG_2PI


def plain_network_normal_log_prob(x: Tensor, parameters: Tensor, min_scale: float) -> Tensor:
    """Return what `network_normal_log_prob` does."""
    location, raw = parameters.chunk(2, dim=-1)
    scale = min_scale + nn.functional.softplus(raw)
    return -0.5 * ((x - location) / scale).square() - scale.log() - _HALF_LOG_2PI


def plain_bounded_log_prob(x: Tensor, raw: Tensor, gain: Tensor, bound: float) -> Tensor:
    """Return what `bounded_log_prob` does."""
    logit = bound * torch.tanh(gain / bound * raw)
    half = (0.5 * logit.abs()).clamp_min(_SMALLEST_HALF)
    return (half + half / half.tanh()).log() + logit * (x - (logit > 0).to(x.dtype))


def plain_draw(encoded: Tensor, points: Tensor, posterior_scale: str) -> tuple[Tensor, Tensor]:
    """Return what `draw` does."""
    mean, raw = encoded.chunk(2, dim=1)
    std, log_std = std_and_log(raw, posterior_scale)
    return mean + std * points, 0.5 * (mean.square() + std.square() - 1).sum() - log_std.sum()


def plain_convolve_and_pool(x: Tensor, weight: Tensor, bias: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Return what `convolve_and_pool` does."""
    images = x.unflatten(1, image_shape).permute(0, 3, 1, 2)
    maps = nn.functional.conv2d(images, weight, bias, padding=1)
    return nn.functional.max_pool2d(maps, 2, ceil_mode=True).flatten(1)


def plain_adam_(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    n_steps: list[Tensor],
    learning_rate: Tensor,
    weight_decay: float,
) -> None:
    """Do what `adam_` does."""
    for p, gradient, mean, square, n in zip(parameters, gradients, means, squares, n_steps, strict=True):
        n.add_(1)
        p.mul_(1 - learning_rate * weight_decay)
        mean.lerp_(gradient, 1 - 0.9)
        square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        p.sub_(learning_rate / (1 - 0.9**n) * mean / ((square / (1 - 0.999**n)).sqrt() + 1e-8))


# torch's private calls, None where this torch does not have one.
_private_threshold_backward: Any = getattr(torch.ops.aten, "threshold_backward", None)
_private_log_sigmoid_forward: Any = getattr(torch.ops.aten, "log_sigmoid_forward", None)
_private_log_sigmoid_backward: Any = getattr(torch.ops.aten, "log_sigmoid_backward", None)
_private_fused_adamw_: Any = getattr(torch, "_fused_adamw_", None)
_private_foreach_add_: Any = getattr(torch, "_foreach_add_", None)
_private_set_forward_mode: Any = getattr(torch.autograd.forward_ad, "_set_fwd_grad_enabled", None)
_private_run_backward: Any = getattr(getattr(torch.autograd.Variable, "_execution_engine", None), "run_backward", None)


def keep_freed_memory() -> None:
    """Keep buffers from being returned to the system and faulted in again, each time that they are needed.

    glibc reuses freed blocks up to the size of the largest block freed so far, which this is.
    """
    torch.empty(_LARGEST_KEPT_ALLOCATION, dtype=torch.uint8, device="cpu")


def forward_mode() -> contextlib.AbstractContextManager[None]:
    """Return a context in which forward-mode derivatives are taken, also within a `jvp`, where torch turns them off."""
    return contextlib.nullcontext() if _private_set_forward_mode is None else _private_set_forward_mode(True)


def _select(values: Tensor, by: Tensor, threshold: float) -> Tensor:
    # The backward of a threshold does it in one pass, several times as fast as by a mask of booleans.
    if _private_threshold_backward is None:
        return plain_select(values, by, threshold)
    return _private_threshold_backward.default(values, by, threshold)


def dropout_mask(bits: Tensor, rate: float) -> Tensor:
    """Return what inverted dropout multiplies its input with.

    That is 0 with probability `rate`, and elsewhere the inverse of the share that is left.

    Parameters
    ----------
    bits : Tensor of int16
        Random numbers, one for each entry.
    rate : float
        Probability in [0, 1), rounded to a multiple of 2^-16.

    Returns
    -------
    Tensor of the shape of `bits`, float32
        The mask.
    """
    n_dropped = min(round(float(rate) * 2**16), 2**16 - 1)
    scale = bits.new_full((), 2**16 / (2**16 - n_dropped), dtype=torch.float32)
    return _select(scale.expand(bits.shape), bits.float(), n_dropped - 2**15 - 1)


class _NormalLogProb(torch.autograd.Function):
    """The normal log density with scales of its own.

    With u = (x - m) / s, the derivative in the mean is u / s, in the scale (u^2 - 1) / s.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        inverse = scale.reciprocal()
        deviation = (x - location).mul_(inverse)
        log_prob = torch.addcmul(inverse.log() - _HALF_LOG_2PI, deviation, deviation, value=-0.5)
        ctx.save_for_backward(deviation, inverse)
        return log_prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        deviation, inverse = ctx.saved_tensors
        if any(gradient.stride()):
            by_scale = (deviation.square().sub_(1).mul_(gradient)).sum_to_size(inverse.shape) * inverse
            return None, deviation * gradient.mul(inverse), by_scale
        gradient = gradient.flatten()[0]  # that of a sum: a single number
        # The norm of all entries takes a tenth of the time of that of each column.
        by_column = None if inverse.numel() == 1 else 0
        deviations = deviation.view(-1, deviation.shape[-1])
        squares = torch.linalg.vector_norm(deviations, dim=by_column).square()
        by_scale = (squares - deviation.numel() // inverse.numel()) * inverse * gradient
        return None, deviation * (inverse * gradient), by_scale


def normal_log_prob(x: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Return the log density of a normal distribution for each entry, in nats.

    Parameters
    ----------
    x : Tensor of shape (..., n_features)
        The values.
    location : Tensor of shape (..., n_features), float32
        Means. The leading axes of either may be longer than those of the other, as in broadcasting.
    scale : Tensor of shape () or (n_features,), float32
        Standard deviations: one for all, or one for each feature.

    Returns
    -------
    Tensor of shape (..., n_features)
        The log density.
    """
    is_broadcast = x.shape != location.shape and np.broadcast_shapes(x.shape, location.shape) != location.shape
    if x.requires_grad or is_broadcast:
        return plain_normal_log_prob(x, location, scale)
    return _NormalLogProb.apply(x, location, scale)


class _NetworkNormalLogProb(torch.autograd.Function):
    """The normal log density with scales from a network.

    Its forward pass computes both derivatives while the entries are in the caches.

    With u = (x - m) / s, the derivative in the mean is u / s, in the scale (u^2 - 1) / s.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, min_scale: float) -> Tensor:
        location, raw = parameters.chunk(2, dim=-1)
        minus_raw = -raw  # in one piece, which halves of rows are not
        minus_softplus, exp = _private_log_sigmoid_forward.default(minus_raw)
        scale = minus_softplus.neg_().add_(min_scale)
        inverse = scale.reciprocal()
        deviation = (x - location).mul_(inverse)
        by_location = deviation * inverse
        log_prob = torch.log(inverse, out=scale).addcmul_(deviation, deviation, value=-0.5).sub_(_HALF_LOG_2PI)
        if ctx.needs_input_grad[1]:
            by_minus_scale = inverse.addcmul_(deviation, by_location, value=-1)
            ctx.save_for_backward(by_location, by_minus_scale, minus_raw, exp)
        return log_prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        by_location, by_minus_scale, minus_raw, exp = ctx.saved_tensors
        if not any(gradient.stride()):  # that of a sum: a single number
            gradient = gradient.flatten()[0]
        n_features = by_location.shape[-1]
        by_minus_raw = _private_log_sigmoid_backward.default(by_minus_scale, minus_raw, exp)
        derivative = by_location.new_empty(*by_location.shape[:-1], 2 * n_features)
        torch.mul(by_location, gradient, out=derivative[..., :n_features])
        torch.mul(by_minus_raw, -gradient, out=derivative[..., n_features:])
        return None, derivative, None


def network_normal_log_prob(x: Tensor, parameters: Tensor, min_scale: float) -> Tensor:
    """Return the log density of a normal distribution for each entry, in nats.

    Parameters
    ----------
    x : Tensor of shape (..., n_features)
        The values.
    parameters : Tensor of shape (..., 2 * n_features), float32
        Means, then values r with the standard deviation ``min_scale + log(1 + exp(r))``.
    min_scale : float
        The smallest standard deviation.

    Returns
    -------
    Tensor of shape (..., n_features)
        The log density.
    """
    if _private_log_sigmoid_forward is None or _private_log_sigmoid_backward is None or x.requires_grad:
        return plain_network_normal_log_prob(x, parameters, min_scale)
    if x.shape[:-1] != parameters.shape[:-1]:
        batch_shape = np.broadcast_shapes(x.shape[:-1], parameters.shape[:-1])
        parameters = parameters.expand(*batch_shape, parameters.shape[-1])
    return _NetworkNormalLogProb.apply(x, parameters, min_scale)


class _BoundedLogProb(torch.autograd.Function):
    """The log density of the continuous Bernoulli with a bounded logit.

    Its forward pass computes the derivative while the entries are in the caches. The logit is e = L t with
    t = tanh(g r / L). With a = |e|, w = 1 / (exp(a) - 1) and E = 1 where e > 0, the log density is
    e (x - E) + log(a + a w). Its derivative in e is x - E + m with the sign of e, where m = 1 / a - w; that in r is
    g (1 - t^2) times as much. Near 0, where m cancels, it is 1/2 - a / 12: a line goes on from where it does not.

    `torch.tanh` takes twice the time of `torch.expm1`, which both are made of.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, gain: Tensor, bound: float) -> Tensor:
        t = torch.mul(raw, 2 * gain / bound).clamp_max_(_LARGEST_EXPONENT).expm1_()
        t.div_(t + 2)
        a = t.abs().mul_(bound)
        far = a.clamp_min(_NEAR)
        w = far.expm1().reciprocal_()
        half = torch.copysign(t.new_full((), 0.5), t)
        from_end = (x - 0.5) - half
        log_prob = torch.addcmul(far, far, w).log_().addcmul_(t, from_end, value=bound)
        m, gap = far.reciprocal().sub_(w), far.sub_(a)
        m.add_(gap, alpha=1 / 24)  # in the middle between a and where the line begins
        log_prob.addcmul_(gap, m, value=-1)
        if ctx.needs_input_grad[1]:
            by_logit = torch.addcmul(from_end, half, m.add_(gap, alpha=1 / 24), value=2)
            ctx.save_for_backward(by_logit.addcmul_(by_logit, t.square_(), value=-1), gain)
        return log_prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        by_raw, gain = ctx.saved_tensors
        if not any(gradient.stride()):  # that of a sum: a single number
            gradient = gradient.flatten()[0]
        return None, by_raw * (gradient * gain), None, None


def bounded_log_prob(x: Tensor, raw: Tensor, gain: Tensor, bound: float) -> Tensor:
    """Return the log density of the continuous Bernoulli with the logit ``bound * tanh(gain * raw / bound)``, in nats.

    Parameters
    ----------
    x : Tensor of shape (..., n_features)
        Values in [0, 1], which are not differentiated by.
    raw : Tensor of shape (..., n_features), float32
        What the logits are made of; the leading axes of either may be longer, as in broadcasting.
    gain : Tensor of shape ()
        The derivative of the logit at 0.
    bound : float
        The bound of the logit on either side.

    Returns
    -------
    Tensor of shape (..., n_features)
        The log density of each entry.
    """
    if raw.shape != x.shape:
        raw = raw.expand(np.broadcast_shapes(x.shape, raw.shape))
    return _BoundedLogProb.apply(x, raw, gain, bound)


def std_and_log(raw: Tensor, posterior_scale: str) -> tuple[Tensor, Tensor]:
    """Return the standard deviations that an encoder's raw scales stand for, and their logarithms, both bounded.

    Parameters
    ----------
    raw : Tensor
        Raw scales r.
    posterior_scale : {"log_variance", "softplus"}
        Whether the standard deviation is exp(r / 2) or log(1 + exp(r)).
    """
    if posterior_scale == "log_variance":
        log_std = (0.5 * raw).clamp(-_LARGEST_LOG_STD, _LARGEST_LOG_STD)
        return log_std.exp(), log_std
    std = (nn.functional.softplus(raw) + _SMALLEST_STD).clamp_max(math.exp(_LARGEST_LOG_STD))
    return std, std.log()


class _Draw(torch.autograd.Function):
    """A reparametrized draw and the KL divergence, whose dozen small steps cost more to differentiate than to take.

    The divergence has the derivatives m in the mean and s - 1 / s in the standard deviation s. Gradients pass through
    the bounds of s as if they were not there, so that a scale beyond them comes back.
    """

    @staticmethod
    def forward(ctx: Any, encoded: Tensor, points: Tensor, posterior_scale: str) -> tuple[Tensor, Tensor]:
        mean, raw = encoded.chunk(2, dim=1)
        std, log_std = std_and_log(raw, posterior_scale)
        ctx.save_for_backward(mean, raw, std, points)
        ctx.posterior_scale = posterior_scale
        twice_kl = mean.square().addcmul_(std, std).sub_(log_std, alpha=2).sum()
        return torch.addcmul(mean, std, points), twice_kl.sub_(mean.numel()).mul_(0.5)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_z: Tensor, by_kl: Tensor) -> tuple[Tensor, None, None]:
        mean, raw, std, points = ctx.saved_tensors
        by_std = by_z * points
        if ctx.posterior_scale == "log_variance":
            by_raw = by_std.mul_(std).addcmul_(by_kl, std * std - 1).mul_(0.5)
        else:
            by_raw = by_std.addcmul_(by_kl, std - 1 / std).mul_(raw.sigmoid())
        return torch.cat([torch.addcmul(by_z, by_kl, mean), by_raw], dim=1), None, None


def draw(encoded: Tensor, points: Tensor, posterior_scale: str) -> tuple[Tensor, Tensor]:
    r"""Return a draw of each row's posterior, and the divergence of all posteriors from the prior.

    .. math::

        z = m + s \varepsilon, \qquad
        \mathrm{KL} = \sum \tfrac12 (m^2 + s^2 - 1) - \log s

    Parameters
    ----------
    encoded : Tensor of shape (batch, 2 * n_components), float32
        Means, then raw scales.
    points : Tensor of shape (batch, n_components)
        Standard-normal draws.
    posterior_scale : {"log_variance", "softplus"}
        What the raw scales stand for.

    Returns
    -------
    z : Tensor of shape (batch, n_components)
        The draws.
    kl : Tensor
        The divergence, summed over rows and components, in nats.
    """
    return _Draw.apply(encoded, points, posterior_scale)


class _ConvolveAndPool(torch.autograd.Function):
    """A 3 x 3 convolution and 2 x 2 max-pooling as one matrix product over the 4 x 4 patches the windows see.

    The product yields all four positions of a window, a few images at a time, so that the full-size convolution,
    which is four times the size of all that goes in and comes out, stays in the cache and is computed again for the
    gradient. On a CPU that takes less than half of the time of the two layers one after the other.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, index: Tensor) -> Tensor:
        n_filters, n_windows = len(weight), len(index) // (16 * weight.shape[1])
        patches = nn.functional.pad(x, (0, 1)).index_select(1, index).view(len(x), -1, n_windows)
        kernels = _spread(weight)
        pooled = x.new_empty(len(x), n_filters * n_windows)
        n_images = max(1, len(x) if x.is_cuda else min(len(x), _CONVOLUTION_ENTRIES // (4 * n_filters * n_windows)))
        positions = x.new_empty(n_images, 4 * n_filters, n_windows)
        for block, out in zip(patches.split(n_images), pooled.split(n_images), strict=True):
            p00, p01, p10, p11 = _convolve(kernels, block, positions)
            torch.maximum(torch.maximum(p00, p01, out=p00), torch.maximum(p10, p11, out=p10), out=out)
        pooled.view(len(x), n_filters, -1).add_(bias[:, None])
        ctx.save_for_backward(patches, kernels)
        ctx.n_images = n_images
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, None]:
        patches, kernels = ctx.saved_tensors
        n_filters = len(kernels) // 4
        kernel_gradient = torch.zeros_like(kernels)
        positions = patches.new_empty(ctx.n_images, len(kernels), patches.shape[2])
        routed = torch.empty_like(positions)
        for block, out in zip(patches.split(ctx.n_images), gradient.split(ctx.n_images), strict=True):
            p00, p01, p10, p11 = _convolve(kernels, block, positions)
            g00, g01, g10, g11 = routed[: len(block)].flatten(1).chunk(4, dim=1)
            # The first of the largest takes it all: a later one does only where it is larger.
            upper, lower = torch.maximum(p00, p01), torch.maximum(p10, p11)
            _route(out, lower.sub_(upper), g00, g10)
            _route(g00, p01.sub_(p00), g00, g01)
            _route(g10, p11.sub_(p10), g10, g11)
            kernel_gradient += torch.bmm(routed[: len(block)], block.transpose(1, 2)).sum(0)
        return None, _gather(kernel_gradient), gradient.view(len(gradient), n_filters, -1).sum((0, 2)), None


def _convolve(kernels: Tensor, patches: Tensor, out: Tensor) -> tuple[Tensor, ...]:
    """Return the convolution without its bias at the four positions of each window."""
    out = out[: len(patches)]
    return torch.bmm(kernels.expand(len(patches), -1, -1), patches, out=out).flatten(1).chunk(4, dim=1)


def _spread(weight: Tensor) -> Tensor:
    """Return the kernels as they lie in a patch for each position: ``(4 * n_filters, 16 * channels)``."""
    kernels = weight.new_zeros(2, 2, len(weight), 4, 4, weight.shape[1])
    for row in (0, 1):
        for column in (0, 1):
            kernels[row, column, :, row : row + 3, column : column + 3] = weight.permute(0, 2, 3, 1)
    return kernels.view(4 * len(weight), -1)


def _gather(gradient: Tensor) -> Tensor:
    """Return the gradient of the weight from that of the spread kernels."""
    gradient = gradient.view(2, 2, len(gradient) // 4, 4, 4, -1)
    parts = [gradient[i, j, :, i : i + 3, j : j + 3] for i in (0, 1) for j in (0, 1)]
    return torch.stack(parts).sum(0).permute(0, 3, 1, 2).contiguous()


def _route(gradient: Tensor, difference: Tensor, first: Tensor, second: Tensor) -> None:
    """Send `gradient` to `second` where `difference` is positive, to `first` elsewhere; `first` may be `gradient`."""
    _private_threshold_backward.grad_input(gradient, difference, 0, grad_input=second)
    torch.sub(gradient, second, out=first)


def window_index(image_shape: tuple[int, int, int]) -> Tensor:
    """Return where each entry of each 4 x 4 patch is in a row of the image.

    The row has a zero appended to it, for what lies off the image.
    """
    height, width, channels = image_shape
    n_features = height * width * channels
    padded = torch.full((height + 2, width + 2, channels), n_features, device="cpu")
    padded[1:-1, 1:-1] = torch.arange(n_features, device="cpu").view(image_shape)
    return padded.unfold(0, 4, 2).unfold(1, 4, 2).permute(3, 4, 2, 0, 1).flatten()


def convolve_and_pool(
    x: Tensor, weight: Tensor, bias: Tensor, image_shape: tuple[int, int, int], index: Tensor | None
) -> Tensor:
    """Return a 3 x 3 convolution that keeps the image's size and 2 x 2 max-pooling, flattened.

    Parameters
    ----------
    x : Tensor of shape (batch, height * width * channels)
        Images, flattened in C order.
    weight : Tensor of shape (n_filters, channels, 3, 3)
        The filters.
    bias : Tensor of shape (n_filters,)
        Their biases.
    image_shape : tuple of int
        (height, width, channels).
    index : Tensor or None
        What `window_index` returns, on the device of `x`; None for an image of an odd side.

    Returns
    -------
    Tensor of shape (batch, n_filters * ceil(height / 2) * ceil(width / 2))
        The pooled convolution.
    """
    if index is None or _private_threshold_backward is None or x.requires_grad:
        return plain_convolve_and_pool(x, weight, bias, image_shape)
    return _ConvolveAndPool.apply(x, weight, bias, index)


def gradients(
    outputs: Sequence[Tensor], weights: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Return the gradient of a weighted sum of `outputs` in each of `parameters`; None where it does not depend on one.

    Parameters
    ----------
    outputs, weights : sequence of Tensor
        Numbers, those that require no gradient among them, and a weight of each.
    parameters : sequence of Tensor
        What to differentiate by.
    """
    pairs = [pair for pair in zip(outputs, weights, strict=True) if pair[0].requires_grad]
    if not pairs:
        return [None] * len(parameters)
    outputs, weights = zip(*pairs, strict=True)
    if _private_run_backward is None:
        return torch.autograd.grad(outputs, parameters, weights, allow_unused=True)
    # torch.autograd.grad ends in this call, after checks that take a fiftieth of a step.
    return _private_run_backward(
        outputs, weights, False, False, tuple(parameters), allow_unreachable=True, accumulate_grad=False
    )


def adam_(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    n_steps: list[Tensor],
    learning_rate: Tensor,
    weight_decay: float,
) -> None:
    """Update parameters and their moments in place by a step of Adam, with decay rates 0.9 and 0.999 [1]_.

    Weight decay is decoupled from the moments [2]_.

    Parameters
    ----------
    parameters, gradients, means, squares : list of Tensor
        Parameters, their gradients in the same memory layout, and the moments.
    n_steps : list of Tensor
        The number of steps of each parameter before this one, a float32 number on its device. It goes up by one.
    learning_rate : Tensor
        The step size, a float32 number on the device of the parameters.
    weight_decay : float
        Times the step size, the share that each parameter loses.

    References
    ----------
    .. [1] Kingma, D. P. and Ba, J., "Adam: a method for stochastic optimization", ICLR 2015.
    .. [2] Loshchilov, I. and Hutter, F., "Decoupled weight decay regularization", ICLR 2019.
    """
    if _private_fused_adamw_ is None or _private_foreach_add_ is None:
        plain_adam_(parameters, gradients, means, squares, n_steps, learning_rate, weight_decay)
        return
    _private_foreach_add_(n_steps, 1)
    # torch.optim.AdamW(fused=True) ends in this call, after as much time again on a small network.
    _private_fused_adamw_(
        parameters,
        gradients,
        means,
        squares,
        [],
        n_steps,
        lr=learning_rate,
        beta1=0.9,
        beta2=0.999,
        weight_decay=weight_decay,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )
