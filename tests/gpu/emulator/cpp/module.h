// The end of every compiled module: finds kernels by name and the module's shared memory.
#pragma once
#include <link.h>

namespace emulator {
// thread-local memory of this module in the calling thread: all of it is __shared__ variables
static thread_local volatile char touched; // there is none before the first access

struct Memory {
  void* start;
  size_t size;
};
struct Found {
  const void* inside;
  Memory memory;
};
static int visit(dl_phdr_info* info, size_t, void* out) {
  Found* found = static_cast<Found*>(out);
  auto at = reinterpret_cast<std::uintptr_t>(found->inside);
  bool ours = false;
  size_t size = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type == PT_LOAD && at - info->dlpi_addr - part.p_vaddr < part.p_memsz) ours = true;
    if (part.p_type == PT_TLS) size = part.p_memsz;
  }
  if (ours) found->memory = {info->dlpi_tls_data, info->dlpi_tls_data ? size : 0};
  return ours;
}
} // namespace emulator

extern "C" {
const emulator::Entry* emulator_find(const char* name) {
  for (int i = 0; i < emulator_count; ++i)
    if (!std::strcmp(emulator_table[i].name, name)) return &emulator_table[i];
  return nullptr;
}
emulator::Memory emulator_statics() {
#if defined(EMULATOR_POISON)
  emulator::touched = 1;
  emulator::Found found = {emulator_table, {nullptr, 0}};
  dl_iterate_phdr(emulator::visit, &found);
  return found.memory;
#else
  return {nullptr, 0};
#endif
}
}
