// A kernel's table entry: its name, how to call it, and what each parameter is.
#pragma once
#include <utility>

namespace emulator {
typedef void (*Call)(void* kernel, void** arguments);

struct Entry {
  const char* name;
  void* kernel;
  Call call;
  int count;
  const char* const* kinds; // as NumPy spells dtypes: "f4", "i8"; "*f4" for a pointer
  const size_t* sizes;      // bytes
};

// other types: "V"
template <class T> struct Kind {
  static constexpr const char *value = "V", *pointer = "*V";
};
#define EMULATOR_KIND(T, name)                                                                   \
  template <> struct Kind<T> {                                                                   \
    static constexpr const char *value = name, *pointer = "*" name;                              \
  };
EMULATOR_KIND(bool, "b1")
EMULATOR_KIND(char, "i1")
EMULATOR_KIND(signed char, "i1")
EMULATOR_KIND(unsigned char, "u1")
EMULATOR_KIND(short, "i2")
EMULATOR_KIND(unsigned short, "u2")
EMULATOR_KIND(int, "i4")
EMULATOR_KIND(unsigned, "u4")
EMULATOR_KIND(long, "i8")
EMULATOR_KIND(long long, "i8")
EMULATOR_KIND(unsigned long, "u8")
EMULATOR_KIND(unsigned long long, "u8")
EMULATOR_KIND(float, "f4")
EMULATOR_KIND(double, "f8")
#undef EMULATOR_KIND
template <class T> struct Kind<T*> {
  static constexpr const char* value = Kind<T>::pointer;
};
template <class T> struct Kind<const T> : Kind<T> {};
template <class T> struct Kind<const T*> : Kind<T*> {};
template <class T> struct Kind<T* __restrict> : Kind<T*> {};
template <class T> struct Kind<const T* __restrict> : Kind<T*> {};

template <class... A, size_t... I>
void call_with(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<typename std::remove_reference<A>::type*>(arguments[I])...);
}
template <class... A> void call(void* kernel, void** arguments) {
  call_with(reinterpret_cast<void (*)(A...)>(kernel), arguments, std::index_sequence_for<A...>());
}
template <class... A> Entry entry(const char* name, void (*kernel)(A...)) {
  static const char* const kinds[] = {Kind<A>::value..., ""};
  static const size_t sizes[] = {sizeof(A)..., 0};
  return {name, reinterpret_cast<void*>(kernel), &call<A...>, static_cast<int>(sizeof...(A)),
          kinds, sizes};
}
} // namespace emulator
