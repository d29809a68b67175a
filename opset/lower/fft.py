"""Fast Fourier transforms in prims: a kernel for each factor of the length.

The passes are those of J. W. Cooley and J. W. Tukey, "An algorithm for the machine calculation of complex Fourier
series", 1965, in an order that leaves nothing to be put back in place: T. G. Stockham, "High-speed convolution and
correlation", 1966. A length with a great prime in it is a convolution with a chirp: L. I. Bluestein, "A linear
filtering approach to the computation of discrete Fourier transform", 1970. Real samples go in pairs, as complex ones.

A transform is computed in one dtype, with roots of unity of float64 rounded to it. The order of operations is that of
numpy's passes of 2 and of odd radices (pocketfft's), so that where these are all there is the roundings are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from omniop.opset import expr, poly
from omniop.opset import prims as p
from omniop.opset.definitions import Scatter, Tensor, TensorStore
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.sym import Dim

_ODD = (3, 5, 7, 11, 13)
"""Odd radices that have a pass: a butterfly of r has (r - 1)^2 products."""


class Complex(NamedTuple):
    """A complex number as two expressions of one real dtype."""

    re: Expr
    im: Expr

    def plus(self, other: Complex) -> Complex:
        return Complex(self.re + other.re, self.im + other.im)

    def minus(self, other: Complex) -> Complex:
        return Complex(self.re - other.re, self.im - other.im)

    def times(self, other: Complex) -> Complex:
        return Complex(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def scaled(self, factor: float) -> Complex:
        return Complex(self.re * factor, self.im * factor)

    def turned(self, sign: int) -> Complex:
        """By a quarter: times i, or times -i."""
        return Complex(-self.im, self.re) if sign > 0 else Complex(self.im, -self.re)

    @property
    def conjugate(self) -> Complex:
        return Complex(self.re, -self.im)


class Signal(NamedTuple):
    """``length`` samples for each point of ``lead``: ``at(*lead, t)``, in ``dtype``."""

    lead: tuple[Dim, ...]
    length: int
    at: Callable[..., Complex]
    dtype: DType


class Sink(NamedTuple):
    """Where a spectrum goes: ``stores(*lead, k, value)`` of its bins below ``bins``, into tensors like ``outputs``."""

    bins: int
    outputs: Sequence[tuple[Sequence[Dim], DType]]
    stores: Callable[[Sequence[Expr], Expr, Complex], Sequence[TensorStore]]


def transform(signal: Signal, sign: int, sink: Sink) -> tuple[Tensor, ...]:
    """sum over t of x[t] exp(sign 2 pi i t k / length) for each bin k, into the sink."""
    radices = _radices(signal.length)
    if radices is None:
        return _by_chirp(signal, sign, sink)
    done = 1
    for radix in radices[:-1]:
        signal = _planes(signal, _pass(signal, sign, done, radix, _to_planes(signal, signal.length)))
        done *= radix
    return _pass(signal, sign, done, radices[-1], sink)


def transform_real(signal: Signal, sign: int, sink: Sink) -> tuple[Tensor, ...]:
    """`transform` of samples whose imaginary part is 0.

    Of an even length, samples 2 t and 2 t + 1 are the parts of one: its spectrum Z of half the length m gives those of
    the even and the odd samples, E = (Z[k] + Z*[m - k]) / 2 and O = (Z[k] - Z*[m - k]) / 2i.
    """
    length, dtype, radices = signal.length, signal.dtype, _radices(signal.length)
    half = length // 2
    if length % 2 or (radices is not None and len(radices) == 1):
        return transform(signal, sign, sink)

    def pair(*i: Expr) -> Complex:
        *lead, t = i
        return Complex(signal.at(*lead, t * 2).re, signal.at(*lead, t * 2 + 1).re)

    paired = Signal(signal.lead, half, pair, dtype)
    z = _planes(paired, transform(paired, sign, _to_planes(paired, half + 1)))
    root = _table(_roots(length, sign)[: half // 2 + 1], dtype)
    *lead, k = p.axes_of([*signal.lead, half // 2 + 1])
    near, far = z.at(*lead, k), z.at(*lead, half - k).conjugate
    even = near.plus(far).scaled(0.5)
    odd = near.minus(far).turned(-1).scaled(0.5).times(root(k))
    low, high = even.plus(odd), even.minus(odd).conjugate
    inner, lower = k > 0, k * 2 < half
    stores = [*_guarded(sink.stores(lead, k, low)), *_guarded(sink.stores(lead, half - k, high), lower)]
    if sink.bins > half + 1:
        stores += _guarded(sink.stores(lead, length - k, low.conjugate), inner)
        stores += _guarded(sink.stores(lead, half + k, high.conjugate), inner & lower)
    return p.record(Scatter((*lead, k), tuple(stores), (None,) * len(sink.outputs)), sink.outputs)


def inverse_real(signal: Signal, sign: int, sink: Sink) -> tuple[Tensor, ...]:
    """The real samples whose spectrum begins with ``signal.at``: bins 0 to length // 2, the others are their
    conjugates. What the sink gets has no imaginary part.

    Of an even length, the parts of E + i O, with E = X[k] + X*[m - k] and O = (X[k] - X*[m - k]) exp(sign 2 pi i k /
    length), are samples 2 t and 2 t + 1.
    """
    length, dtype = signal.length, signal.dtype
    half, nothing = length // 2, expr.const(0.0, dtype)

    def bin_at(lead: Sequence[Expr], k: Expr) -> Complex:
        value = signal.at(*lead, k)
        real = k.eq(0) | k.eq(half) if length % 2 == 0 else k.eq(0)
        return Complex(value.re, expr.select(real, 0.0, value.im))

    if length % 2:

        def mirrored(*i: Expr) -> Complex:
            second = i[-1] > half
            value = bin_at(i[:-1], expr.select(second, length - i[-1], i[-1]))
            return Complex(value.re, expr.select(second, -value.im, value.im))

        last = Sink(length, sink.outputs, lambda lead, t, value: sink.stores(lead, t, Complex(value.re, nothing)))
        return transform(signal._replace(at=mirrored), sign, last)
    root = _table(_roots(length, sign)[:half], dtype)

    def paired(*i: Expr) -> Complex:
        *lead, k = i
        near, far = bin_at(lead, k), bin_at(lead, half - k).conjugate
        return near.plus(far).plus(near.minus(far).times(root(k)).turned(1))

    def apart(lead: Sequence[Expr], t: Expr, value: Complex) -> Sequence[TensorStore]:
        first, second = (sink.stores(lead, t * 2 + n, Complex(part, nothing)) for n, part in enumerate(value))
        return [*first, *second]

    return transform(Signal(signal.lead, half, paired, dtype), sign, Sink(half, sink.outputs, apart))


# Passes ---------------------------------------------------------------------------------------------------------------


def _radices(length: int) -> list[int] | None:
    """The radices of the passes, in order: as few of 8 and 4 as there can be, or one of 2; then odd ones. None where a
    greater prime is left."""
    twos = (length & -length).bit_length() - 1
    rest = length >> twos
    rounds = -(-twos // 3)
    result = [2] if twos == 1 else [8] * (twos - 2 * rounds) + [4] * (3 * rounds - twos)
    for radix in _ODD:
        while rest % radix == 0:
            result.append(radix)
            rest //= radix
    return None if rest > 1 else result or [1]


def _pass(signal: Signal, sign: int, done: int, radix: int, sink: Sink) -> tuple[Tensor, ...]:
    """``done`` spectra of radix * rest points, one after the other, become radix * done of rest points: number u * done
    + k has every radix-th bin, from u on, of what number k had."""
    rest = signal.length // (done * radix)
    *lead, k, i = p.axes_of([*signal.lead, done, rest])
    values = _butterfly([signal.at(*lead, (k * radix + b) * rest + i) for b in range(radix)], sign)
    if rest > 1:
        powers = np.outer(np.arange(1, radix), np.arange(rest))
        root = _table(_roots(radix * rest, sign)[powers % (radix * rest)], signal.dtype)
        values = [values[0], *(value.times(root(expr.index(u), i)) for u, value in enumerate(values[1:]))]
    stores: list[TensorStore] = []
    for u, value in enumerate(values):
        first, last = u * done * rest, (u + 1) * done * rest - 1
        if first < sink.bins:
            place = (k + u * done) * rest + i
            stores += _guarded(sink.stores(lead, place, value), None if last < sink.bins else place < sink.bins)
    return p.record(Scatter((*lead, k, i), tuple(stores), (None,) * len(sink.outputs)), sink.outputs)


def _butterfly(c: Sequence[Complex], sign: int) -> list[Complex]:
    """The transform of a few numbers."""
    radix = len(c)
    if radix == 1:
        return list(c)
    if radix == 2:
        return [c[0].plus(c[1]), c[0].minus(c[1])]
    if radix % 2:
        return _odd_butterfly(c, sign)
    even, odd = _butterfly(c[::2], sign), _butterfly(c[1::2], sign)
    odd = [_eighth(value, u * 8 // radix, sign) for u, value in enumerate(odd)]
    pairs = list(zip(even, odd, strict=True))
    return [a.plus(b) for a, b in pairs] + [a.minus(b) for a, b in pairs]


def _eighth(value: Complex, eighths: int, sign: int) -> Complex:
    """Turned by 0 to 3 eighths of a full turn."""
    if eighths >= 2:
        value = value.turned(sign)
    return value.plus(value.turned(sign)).scaled(0.5**0.5) if eighths % 2 else value


def _odd_butterfly(c: Sequence[Complex], sign: int) -> list[Complex]:
    """Bins u and radix - u share their products with sums and differences of terms j and radix - j."""
    radix = len(c)
    roots = _roots(radix, sign)
    pairs = range(1, radix // 2 + 1)
    sums = [c[j].plus(c[-j]) for j in pairs]
    differences = [c[j].minus(c[-j]) for j in pairs]
    total = c[0]
    for value in sums:
        total = total.plus(value)
    result = [total] * radix
    for u in pairs:
        factors = [roots[j * u % radix] for j in pairs]
        along = c[0]
        for factor, value in zip(factors, sums, strict=True):
            along = along.plus(value.scaled(factor.real))
        across = [value.scaled(factor.imag) for factor, value in zip(factors, differences, strict=True)]
        turn = across[0]
        for value in across[1:]:
            turn = turn.plus(value)
        result[u], result[radix - u] = along.plus(turn.turned(1)), along.minus(turn.turned(1))
    return result


# A chirp --------------------------------------------------------------------------------------------------------------


def _by_chirp(signal: Signal, sign: int, sink: Sink) -> tuple[Tensor, ...]:
    """t k = (t^2 + k^2 - (t - k)^2) / 2 makes a transform a convolution, and two transforms of a length that has passes
    make that."""
    length, dtype = signal.length, signal.dtype
    wide = next(n for n in itertools.count(2 * length - 1) if _is_smooth(n))
    chirp = np.zeros(wide, np.complex128)
    chirp[:length] = _roots(2 * length, sign)[np.arange(length) ** 2 % (2 * length)]
    response = chirp.conj()
    response[wide - length + 1 :] = response[length - 1 : 0 : -1]
    turn, filtered = _table(chirp, dtype), _table(np.fft.fft(response) / wide, dtype)

    def chirped(*i: Expr) -> Complex:
        inside = i[-1] < length
        value = signal.at(*i[:-1], expr.select(inside, i[-1], 0)).times(turn(i[-1]))
        return Complex(*(expr.select(inside, part, 0.0) for part in value))

    widened = Signal(signal.lead, wide, chirped, dtype)
    spectrum = _planes(widened, transform(widened, -1, _to_planes(widened, wide)))
    product = spectrum._replace(at=lambda *i: spectrum.at(*i).times(filtered(i[-1])))
    last = Sink(sink.bins, sink.outputs, lambda lead, k, value: sink.stores(lead, k, value.times(turn(k))))
    return transform(product, 1, last)


def _is_smooth(length: int) -> bool:
    """One of the lengths that have passes of 8 and 4 but for one or two."""
    return length // (length & -length) in (1, 3, 5, 9)


# Numbers and places ---------------------------------------------------------------------------------------------------


def _roots(length: int, sign: int) -> np.ndarray:
    """exp(sign 2 pi i j / length) for each j, complex128 [length]: quarters and mirrored angles exact."""
    quarter, part = np.divmod(4 * np.arange(length), length)
    mirrored = 2 * part > length
    angle = np.where(mirrored, length - part, part) * (np.pi / 2 / length)
    cosine, sine = np.cos(angle), np.sin(angle)
    cosine, sine = np.where(mirrored, sine, cosine), np.where(mirrored, cosine, sine)
    cosine, sine = np.where(quarter % 2, -sine, cosine), np.where(quarter % 2, cosine, sine)
    half = np.where(quarter >= 2, -1.0, 1.0)
    return half * cosine + sign * 1j * (half * sine)


def _table(values: np.ndarray, dtype: DType) -> Callable[..., Complex]:
    """Complex constants: the one at an index."""
    held = p.constant(np.stack([values.real, values.imag]).astype(dtype.numpy), dtype)
    return lambda *i: Complex(held.at(0, *i), held.at(1, *i))


def _to_planes(signal: Signal, length: int) -> Sink:
    """Real and imaginary parts apart. One element more than the signal has is the first again."""

    def stores(lead: Sequence[Expr], k: Expr, value: Complex) -> Sequence[TensorStore]:
        made = [TensorStore(n, (*lead, k), part) for n, part in enumerate(value)]
        if length > signal.length and not poly.nonnegative(k - 1):
            again = k.eq(0)
            made += [TensorStore(n, (*lead, k + signal.length), part, again) for n, part in enumerate(value)]
        return made

    return Sink(signal.length, [([*signal.lead, length], signal.dtype)] * 2, stores)


def _planes(signal: Signal, parts: Sequence[Tensor]) -> Signal:
    re, im = parts
    return signal._replace(at=lambda *i: Complex(re.at(*i), im.at(*i)))


def _guarded(stores: Sequence[TensorStore], guard: Expr | None = None) -> list[TensorStore]:
    """The stores where the guard holds, their own included; those that never happen are left out."""
    result = []
    for s in stores:
        both = expr.all_of([g for g in (s.guard, guard) if g is not None])
        if both is None or not expr.is_const(both, False):
            result.append(TensorStore(s.output, tuple(map(expr.index, s.index)), s.value, both))
    return result
