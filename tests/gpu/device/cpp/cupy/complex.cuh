// Instead of CuPy's Thrust-based complex numbers: enough for kernels of real numbers.
#pragma once
template <class T> struct complex {
  T re, im;
  complex(T re = 0, T im = 0) : re(re), im(im) {}
  T real() const { return re; }
  T imag() const { return im; }
  void real(T v) { re = v; }
  void imag(T v) { im = v; }
};
template <class T> inline complex<T> conj(const complex<T>& c) { return complex<T>(c.re, -c.im); }
template <class T> inline T norm(const complex<T>& c) { return c.re * c.re + c.im * c.im; }
typedef complex<float> complex64;
typedef complex<double> complex128;
