"""Smooth stand-ins for functions with bends and jumps, and their derivatives.

Most work value by value, on arrays of any shape and memory layout, and take scalars too; `smooth_max` and `power_mean`
work along `axis`. With ``value_and_grad=True`` each returns its values and its derivatives, in one pass. The bits of a
result do not depend on `workers`, the layout, the other values, or the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, overload

import numpy as np

from unitmass import _core
from unitmass._arrays import Array, Pair, map_elements, map_means, number, real_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "floor",
    "leaky_relu",
    "power_mean",
    "relu",
    "round",
    "sign",
    "smooth",
    "smooth_abs",
    "smooth_max",
    "step",
]

Kernel: TypeAlias = Literal["logistic", "gaussian", "uniform"]
Form: TypeAlias = Literal["convolution", "product"]

KERNELS = ("logistic", "gaussian", "uniform")


@overload
def relu(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    form: Form = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def relu(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    form: Form = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def relu(
    x: ArrayLike,
    /,
    width: float = 1.0,
    *,
    kernel: Kernel = "logistic",
    form: Form = "convolution",
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Smooth the rectifier max(x, 0).

    Parameters
    ----------
    x : array_like
        Values, in an array of any shape. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    width : float, default 1.0
        The width w of the kernel, finite and positive.
    kernel : {"logistic", "gaussian", "uniform"}, default "logistic"
        The density that smooths: the derivative of :math:`1/(1 + e^{-x/w})`, the normal density of standard deviation
        w, or the uniform one on [-w, w].
    form : {"convolution", "product"}, default "convolution"
        Whether to convolve the function with the kernel, or to multiply by a smoothed step.
    value_and_grad : bool, default False
        Return the derivatives too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x`, and a type that its type casts to. May be `x` itself. With
        `value_and_grad` a tuple of two, the second for the derivatives.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        The values; a scalar for a scalar. With ``value_and_grad=True`` a tuple of values and derivatives.

    Raises
    ------
    ValueError
        If `width` is not finite and positive, or `kernel` or `form` is unknown; if the shape of `out` does not fit.
    TypeError
        If `x` is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    leaky_relu, step, smooth

    Notes
    -----
    The convolution [1]_, with H the smoothed step (see `step`) and z = x/w:

    ======== ============================================================ ========================
    kernel   value                                                        derivative
    ======== ============================================================ ========================
    logistic :math:`w \log(1 + e^z)`, the softplus                        :math:`1/(1 + e^{-z})`
    gaussian :math:`x \Phi(z) + w \varphi(z)`                             :math:`\Phi(z)`
    uniform  :math:`w (1 + z)^2/4` for :math:`|z| \le 1`, else the exact  :math:`(1 + z)/2`
    ======== ============================================================ ========================

    The product is :math:`x H(x)`: with the logistic kernel swish or SiLU [2]_, with the Gaussian one GELU [3]_.

    Both are the exact function plus a tail of the kernel, which is computed to a few ulp of itself, however small. NaN
    stays NaN; at infinities, value and derivative are the limits. As the width goes to 0, the exact function is
    reached.

    References
    ----------
    .. [1] K. Biswas, S. Kumar, S. Banerjee and A. K. Pandey, "SAU: smooth activation function using convolution with
       approximate identities", ECCV 2022. arXiv:2109.13210.
    .. [2] P. Ramachandran, B. Zoph and Q. V. Le, "Searching for activation functions", 2017. arXiv:1710.05941.
    .. [3] D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016. arXiv:1606.08415.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.relu([-1.0, 0.0, 1.0, 2.0], kernel="gaussian").round(6)
    array([0.083315, 0.398942, 1.083315, 2.008491])
    >>> value, slope = um.smooth.relu(2.0, form="product", value_and_grad=True)  # SiLU
    >>> float(value), float(slope)
    (1.761594, 1.090784)
    """
    return _ramp(x, 0.0, width, kernel, form, value_and_grad, out, workers)


@overload
def leaky_relu(
    x: ArrayLike,
    /,
    slope: float = ...,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    form: Form = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def leaky_relu(
    x: ArrayLike,
    /,
    slope: float = ...,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    form: Form = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def leaky_relu(
    x: ArrayLike,
    /,
    slope: float = 0.01,
    width: float = 1.0,
    *,
    kernel: Kernel = "logistic",
    form: Form = "convolution",
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Smooth the leaky rectifier: x above 0, `slope` times x below.

    Parameters
    ----------
    x : array_like
        Values, in an array of any shape. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    slope : float, default 0.01
        The slope below 0; finite.
    width : float, default 1.0
        The width w of the kernel, finite and positive.
    kernel : {"logistic", "gaussian", "uniform"}, default "logistic"
        The density that smooths: the derivative of :math:`1/(1 + e^{-x/w})`, the normal density of standard deviation
        w, or the uniform one on [-w, w].
    form : {"convolution", "product"}, default "convolution"
        Whether to convolve the function with the kernel, or to multiply by a smoothed step.
    value_and_grad : bool, default False
        Return the derivatives too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x`, and a type that its type casts to. May be `x` itself. With
        `value_and_grad` a tuple of two, the second for the derivatives.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        The values; a scalar for a scalar. With ``value_and_grad=True`` a tuple of values and derivatives.

    Raises
    ------
    ValueError
        If `width` is not finite and positive, `slope` is not finite, or `kernel` or `form` is unknown; if the shape of
        `out` does not fit.
    TypeError
        If `x` is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    relu, smooth

    Notes
    -----
    The convolution is :math:`s x + (1 - s) R(x)` with R as in `relu` (SAU [1]_ for the Gaussian kernel), the product
    :math:`x (s + (1 - s) H(x))` with H as in `step`.

    Where a leak of one sign meets a tail of the other, their sum is accurate to a few ulp of the larger.

    References
    ----------
    .. [1] K. Biswas, S. Kumar, S. Banerjee and A. K. Pandey, "SAU: smooth activation function using convolution with
       approximate identities", ECCV 2022. arXiv:2109.13210.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.leaky_relu([-10.0, 0.0, 10.0], 0.1).round(6)
    array([-0.999959,  0.623832, 10.000041])
    """
    return _ramp(x, number(slope, "slope"), width, kernel, form, value_and_grad, out, workers)


@overload
def step(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def step(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def step(
    x: ArrayLike,
    /,
    width: float = 1.0,
    *,
    kernel: Kernel = "logistic",
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Smooth the step from 0 to 1.

    Parameters
    ----------
    x : array_like
        Values, in an array of any shape. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    width : float, default 1.0
        The width w of the kernel, finite and positive.
    kernel : {"logistic", "gaussian", "uniform"}, default "logistic"
        The density that smooths: the derivative of :math:`1/(1 + e^{-x/w})`, the normal density of standard deviation
        w, or the uniform one on [-w, w].
    value_and_grad : bool, default False
        Return the derivatives too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x`, and a type that its type casts to. May be `x` itself. With
        `value_and_grad` a tuple of two, the second for the derivatives.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        The values; a scalar for a scalar. With ``value_and_grad=True`` a tuple of values and derivatives.

    Raises
    ------
    ValueError
        If `width` is not finite and positive or `kernel` is unknown; if the shape of `out` does not fit.
    TypeError
        If `x` is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    sign, floor, smooth

    Notes
    -----
    The distribution function H of the kernel: :math:`1/(1 + e^{-x/w})`, :math:`\Phi(x/w)`, or the line from -w to w.
    Its derivative is the density of the kernel. Both keep their relative precision far below 0.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.step([-2.0, 0.0, 2.0], kernel="gaussian").round(6)
    array([0.02275, 0.5    , 0.97725])
    """
    return _function("step", x, 0.0, width, kernel, value_and_grad, out, workers)


@overload
def sign(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def sign(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def sign(
    x: ArrayLike,
    /,
    width: float = 1.0,
    *,
    kernel: Kernel = "logistic",
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Smooth the sign.

    Parameters
    ----------
    x : array_like
        Values, in an array of any shape. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    width : float, default 1.0
        The width w of the kernel, finite and positive.
    kernel : {"logistic", "gaussian", "uniform"}, default "logistic"
        The density that smooths: the derivative of :math:`1/(1 + e^{-x/w})`, the normal density of standard deviation
        w, or the uniform one on [-w, w].
    value_and_grad : bool, default False
        Return the derivatives too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x`, and a type that its type casts to. May be `x` itself. With
        `value_and_grad` a tuple of two, the second for the derivatives.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        The values; a scalar for a scalar. With ``value_and_grad=True`` a tuple of values and derivatives.

    Raises
    ------
    ValueError
        If `width` is not finite and positive or `kernel` is unknown; if the shape of `out` does not fit.
    TypeError
        If `x` is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    step, smooth_abs

    Notes
    -----
    2 H - 1 with H as in `step`: :math:`\tanh(x/2w)`, :math:`\operatorname{erf}(x/\sqrt{2}w)`, or x/w cut at -1 and 1.
    Exactly odd, and precise near 0 too.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.sign([-1.0, 0.0, 1e-20], 0.5)
    array([-7.61594156e-01,  0.00000000e+00,  1.00000000e-20])
    """
    return _function("sign", x, 0.0, width, kernel, value_and_grad, out, workers)


@overload
def floor(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def floor(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def floor(
    x: ArrayLike,
    /,
    width: float = 1.0,
    *,
    kernel: Kernel = "logistic",
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Smooth the largest integer that is not above x.

    Parameters
    ----------
    x : array_like
        Values, in an array of any shape. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    width : float, default 1.0
        The width w of the kernel, finite and positive.
    kernel : {"logistic", "gaussian", "uniform"}, default "logistic"
        The density that smooths: the derivative of :math:`1/(1 + e^{-x/w})`, the normal density of standard deviation
        w, or the uniform one on [-w, w].
    value_and_grad : bool, default False
        Return the derivatives too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x`, and a type that its type casts to. May be `x` itself. With
        `value_and_grad` a tuple of two, the second for the derivatives.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        The values; a scalar for a scalar. With ``value_and_grad=True`` a tuple of values and derivatives.

    Raises
    ------
    ValueError
        If `width` is not finite and positive or `kernel` is unknown; if the shape of `out` does not fit.
    TypeError
        If `x` is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    round, step

    Notes
    -----
    Narrow kernels add up the steps nearby; wide ones the Fourier series

    .. math:: x - \tfrac12 + \sum_{m \ge 1} \frac{\hat c(2 \pi m)}{\pi m} \sin(2 \pi m x),

    where :math:`\hat c` is the characteristic function of the kernel; for the uniform kernel its sum is known. A wide
    kernel so leaves x - 1/2. The error is a few ulp of 1 or of the value. At infinities the value is infinite, and the
    derivative, which has no limit there, NaN.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.floor([0.5, 1.0, 1.1, 1.5], 0.05).round(6)
    array([0.      , 0.5     , 0.880797, 1.      ])
    """
    return _function("floor", x, 0.0, width, kernel, value_and_grad, out, workers)


@overload
def round(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def round(
    x: ArrayLike,
    /,
    width: float = ...,
    *,
    kernel: Kernel = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def round(
    x: ArrayLike,
    /,
    width: float = 1.0,
    *,
    kernel: Kernel = "logistic",
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Smooth the integer next to x.

    Parameters
    ----------
    x : array_like
        Values, in an array of any shape. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    width : float, default 1.0
        The width w of the kernel, finite and positive.
    kernel : {"logistic", "gaussian", "uniform"}, default "logistic"
        The density that smooths: the derivative of :math:`1/(1 + e^{-x/w})`, the normal density of standard deviation
        w, or the uniform one on [-w, w].
    value_and_grad : bool, default False
        Return the derivatives too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x`, and a type that its type casts to. May be `x` itself. With
        `value_and_grad` a tuple of two, the second for the derivatives.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        The values; a scalar for a scalar. With ``value_and_grad=True`` a tuple of values and derivatives.

    Raises
    ------
    ValueError
        If `width` is not finite and positive or `kernel` is unknown; if the shape of `out` does not fit.
    TypeError
        If `x` is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    floor, step

    Notes
    -----
    Narrow kernels add up the steps nearby; wide ones the Fourier series

    .. math:: x + \sum_{m \ge 1} (-1)^m \frac{\hat c(2 \pi m)}{\pi m} \sin(2 \pi m x),

    where :math:`\hat c` is the characteristic function of the kernel; for the uniform kernel its sum is known. A wide
    kernel so leaves x. The error is a few ulp of 1 or of the value. At infinities the value is infinite, and the
    derivative, which has no limit there, NaN.

    Which of two integers is next to a half does not matter to a convolution: at halves the value lies between them.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.round([0.0, 0.5, 0.6, 1.0], 0.05).round(6)
    array([0.      , 0.5     , 0.880797, 1.      ])
    """
    return _function("round", x, 0.0, width, kernel, value_and_grad, out, workers)


@overload
def smooth_abs(
    x: ArrayLike,
    /,
    k: float = ...,
    *,
    form: Literal["maximum", "root"] = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def smooth_abs(
    x: ArrayLike,
    /,
    k: float = ...,
    *,
    form: Literal["maximum", "root"] = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def smooth_abs(
    x: ArrayLike,
    /,
    k: float = 1.0,
    *,
    form: Literal["maximum", "root"] = "maximum",
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Smooth the absolute value.

    Parameters
    ----------
    x : array_like
        Values, in an array of any shape. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    k : float, default 1.0
        The sharpness, finite and positive.
    form : {"maximum", "root"}, default "maximum"
        The smooth maximum of x and -x, or a hyperbola.
    value_and_grad : bool, default False
        Return the derivatives too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x`, and a type that its type casts to. May be `x` itself. With
        `value_and_grad` a tuple of two, the second for the derivatives.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        The values; a scalar for a scalar. With ``value_and_grad=True`` a tuple of values and derivatives.

    Raises
    ------
    ValueError
        If `k` is not finite and positive or `form` is unknown; if the shape of `out` does not fit.
    TypeError
        If `x` is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    smooth_max, sign

    Notes
    -----
    "maximum" is :math:`\log(e^{kx} + e^{-kx})/k`, at most :math:`(\log 2)/k` above :math:`|x|`, with the derivative
    :math:`\tanh kx`: :math:`|x|` convolved with the logistic kernel of width 1/(2k). "root" is
    :math:`\sqrt{x^2 + 1/k^2}`, at most 1/k above, which it approaches only as 1/x. Both are exactly even, and nothing
    overflows.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.smooth_abs([-2.0, 0.0, 2.0]).round(6)
    array([2.01815 , 0.693147, 2.01815 ])
    >>> um.smooth.smooth_abs([-2.0, 0.0, 2.0], form="root").round(6)
    array([2.236068, 1.      , 2.236068])
    """
    _check_choice(form, ("maximum", "root"), "form")
    sharpness = number(k, "k")
    return map_elements(_core.smooth_abs, x, sharpness, form, value_and_grad=value_and_grad, out=out, workers=workers)


@overload
def smooth(
    x: ArrayLike,
    /,
    breaks: ArrayLike,
    slopes: ArrayLike,
    jumps: ArrayLike | None = ...,
    width: float = ...,
    *,
    value: float = ...,
    kernel: Kernel = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def smooth(
    x: ArrayLike,
    /,
    breaks: ArrayLike,
    slopes: ArrayLike,
    jumps: ArrayLike | None = ...,
    width: float = ...,
    *,
    value: float = ...,
    kernel: Kernel = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def smooth(
    x: ArrayLike,
    /,
    breaks: ArrayLike,
    slopes: ArrayLike,
    jumps: ArrayLike | None = None,
    width: float = 1.0,
    *,
    value: float = 0.0,
    kernel: Kernel = "logistic",
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Smooth a piecewise-linear function: convolve it with a kernel.

    Parameters
    ----------
    x : array_like
        Values, in an array of any shape. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    breaks : array_like, shape (m,)
        Where the lines meet, m >= 1 of them, finite and increasing.
    slopes : array_like, shape (m + 1,)
        The slope before the first break, between each two, and behind the last; finite.
    jumps : array_like, shape (m,), optional
        What is added at each break; none by default.
    width : float, default 1.0
        The width w of the kernel, finite and positive.
    value : float, default 0.0
        The value of the function at the first break, from the left.
    kernel : {"logistic", "gaussian", "uniform"}, default "logistic"
        The density that smooths: the derivative of :math:`1/(1 + e^{-x/w})`, the normal density of standard deviation
        w, or the uniform one on [-w, w].
    value_and_grad : bool, default False
        Return the derivatives too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x`, and a type that its type casts to. May be `x` itself. With
        `value_and_grad` a tuple of two, the second for the derivatives.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        The values; a scalar for a scalar. With ``value_and_grad=True`` a tuple of values and derivatives.

    Raises
    ------
    ValueError
        If `width` is not finite and positive, `kernel` is unknown, the breaks do not increase, a number is not finite,
        or the lengths do not fit; if the shape of `out` does not fit.
    TypeError
        If `x` is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    relu, step, sign

    Notes
    -----
    With breaks :math:`b_i`, slopes :math:`s_i`, jumps :math:`j_i` and `value` v,

    .. math:: \tilde f(x) = v + s_0 (x - b_1) + \sum_i (s_i - s_{i-1}) R(x - b_i) + j_i H(x - b_i),

    R and H being `relu` and `step` [1]_. `relu` is ``breaks=[0], slopes=[0, 1]``; `step` is ``breaks=[0], slopes=[0,
    0], jumps=[1]``; `sign` has ``jumps=[2]`` and a `value` of -1. It is computed as the exact line at x plus the tails
    of the kernel at the breaks, so nothing cancels where the function is level. The cost is that of a `relu` for each
    break.

    References
    ----------
    .. [1] K. Biswas, S. Kumar, S. Banerjee and A. K. Pandey, "SAU: smooth activation function using convolution with
       approximate identities", ECCV 2022. arXiv:2109.13210.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.smooth([0.0, 1.0, 2.0], breaks=[0, 1, 2], slopes=[0, 1, -1, 0], width=0.1).round(6)  # a hat
    array([0.069306, 0.86138 , 0.069306])
    """
    _check_choice(kernel, KERNELS, "kernel")
    at = _vector(breaks, "breaks")
    pieces = (
        at,
        _vector(slopes, "slopes"),
        np.zeros_like(at) if jumps is None else _vector(jumps, "jumps"),
        number(value, "value"),
    )
    w = number(width, "width")
    return map_elements(
        _core.smooth_pieces, x, pieces, w, kernel, value_and_grad=value_and_grad, out=out, workers=workers
    )


@overload
def smooth_max(
    x: ArrayLike,
    /,
    k: float = ...,
    *,
    axis: int = ...,
    where: ArrayLike | None = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def smooth_max(
    x: ArrayLike,
    /,
    k: float = ...,
    *,
    axis: int = ...,
    where: ArrayLike | None = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def smooth_max(
    x: ArrayLike,
    /,
    k: float = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Take the smooth maximum along an axis, or the smooth minimum.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    k : float, default 1.0
        The sharpness, finite and not 0; negative for the smooth minimum.
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`.
    value_and_grad : bool, default False
        Return the gradient too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x` without `axis`, and a type that its type casts to. With `value_and_grad` a
        tuple of two, the second for the gradient, of the shape of `x`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x` without `axis`
        The values; a scalar for one row. With ``value_and_grad=True`` a tuple of values and the gradient, which has the
        shape of `x`.

    Raises
    ------
    ValueError
        If `k` is 0 or not finite; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    power_mean, smooth_abs, unitmass.softmax

    Notes
    -----
    :math:`\frac1k \log \sum_i e^{k x_i}`: for k > 0 at least the maximum and at most :math:`(\log n)/k` above it, for k
    < 0 as near below the minimum. The gradient is softmax(k x).

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf (of +inf for k < 0) take no part; a row of
    nothing else has itself as its value, and a gradient of NaN. Scores of +inf (-inf) share the gradient equally. A row
    that `where` excludes whole has the value -inf (+inf) and a gradient of zeros.

    Examples
    --------
    >>> import unitmass as um
    >>> um.smooth.smooth_max([1, 0.9, -2], 5)
    np.float64(1.09481543)
    >>> value, gradient = um.smooth.smooth_max([1, 0.9, -2], -5, value_and_grad=True)
    >>> gradient.round(6)
    array([0., 0., 1.])
    """
    parameter = number(k, "k")
    return map_means(
        _core.smooth_max, x, axis, parameter, where=where, value_and_grad=value_and_grad, out=out, workers=workers
    )


@overload
def power_mean(
    x: ArrayLike,
    /,
    p: float = ...,
    *,
    axis: int = ...,
    where: ArrayLike | None = ...,
    value_and_grad: Literal[False] = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def power_mean(
    x: ArrayLike,
    /,
    p: float = ...,
    *,
    axis: int = ...,
    where: ArrayLike | None = ...,
    value_and_grad: Literal[True],
    out: Pair | None = ...,
    workers: int | None = ...,
) -> Pair: ...
def power_mean(
    x: ArrayLike,
    /,
    p: float = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    value_and_grad: bool = False,
    out: Array | Pair | None = None,
    workers: int | None = None,
) -> Array | Pair:
    r"""Take the power mean along an axis.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Values, not negative, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers
        and booleans become float64.
    p : float, default 1.0
        The power, any number: 1 is the arithmetic mean, 0 the geometric, -1 the harmonic, +-inf the maximum and the
        minimum.
    axis : int, default -1
        The axis of the values.
    where : array_like of bool, optional
        Values that take part; broadcast to the shape of `x`.
    value_and_grad : bool, default False
        Return the gradient too.
    out : ndarray or pair of them, optional
        Where to put the values; shape of `x` without `axis`, and a type that its type casts to. With `value_and_grad` a
        tuple of two, the second for the gradient, of the shape of `x`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x` without `axis`
        The values; a scalar for one row. With ``value_and_grad=True`` a tuple of values and the gradient, which has the
        shape of `x`.

    Raises
    ------
    ValueError
        If `p` is NaN; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    smooth_max

    Notes
    -----
    :math:`M = (\frac1n \sum_i x_i^p)^{1/p}`, computed relative to the largest term, so nothing overflows, and by log1p,
    so p may be as near to 0 as it likes. The gradient is :math:`(x_i/M)^{p-1}/n`; p = +-inf shares it equally among the
    greatest or least.

    A row with a negative value or a NaN becomes NaN, even if the NaN is excluded. Values of -inf take no part, as if
    excluded; a row of which nothing takes part is NaN, and its gradient zeros where `where` made it so. Zeros and +inf
    give the limits: with p <= 0 a single zero makes the mean 0.

    Examples
    --------
    >>> import unitmass as um
    >>> [float(um.smooth.power_mean([1, 2, 4], p)) for p in (-1, 0, 1, 2)]
    [1.714286, 2.0, 2.333333, 2.645751]
    """
    parameter = number(p, "p")
    return map_means(
        _core.power_mean, x, axis, parameter, where=where, value_and_grad=value_and_grad, out=out, workers=workers
    )


def _check_choice(given: str, known: tuple[str, ...], name: str) -> None:
    if given not in known:
        names = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        raise ValueError(f"{name}: expected {names}, found {given!r}")


def _function(
    name: str,
    x: ArrayLike,
    slope: float,
    width: float,
    kernel: str,
    value_and_grad: bool,
    out: Array | Pair | None,
    workers: int | None,
) -> Array | Pair:
    _check_choice(kernel, KERNELS, "kernel")
    w = number(width, "width")
    return map_elements(
        _core.smooth_function, x, name, slope, w, kernel, value_and_grad=value_and_grad, out=out, workers=workers
    )


def _ramp(
    x: ArrayLike,
    slope: float,
    width: float,
    kernel: str,
    form: str,
    value_and_grad: bool,
    out: Array | Pair | None,
    workers: int | None,
) -> Array | Pair:
    _check_choice(form, ("convolution", "product"), "form")
    name = "ramp" if form == "convolution" else "gate"
    return _function(name, x, slope, width, kernel, value_and_grad, out, workers)


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Take a list of real numbers."""
    vector = real_numbers(values, name)
    if vector.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, found shape {vector.shape}")
    return np.array(vector, np.float64)  # a copy: `out` may be what was passed
