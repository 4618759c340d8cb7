// What both engines share: the state of a launch, its checks, and the functions that Python
// calls.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <vector>

#include "language.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace emulator {
dim3 grid_size, block_size;
unsigned char* dynamic_shared;
static char message[512];
static std::uint64_t slots[32][32]; // [warp][lane]
static unsigned seed = 0;           // not 0: blocks and threads run in a random order

struct Memory {
  void* start;
  size_t size;
};

void fail(const char* format, ...) {
  if (message[0]) return; // the first error is the cause of the others
  va_list list;
  va_start(list, format);
  vsnprintf(message, sizeof message, format, list);
  va_end(list);
}

static uint3 place(unsigned i, dim3 size) {
  return {i % size.x, i / size.x % size.y, i / size.x / size.y};
}

static bool launchable(dim3 grid, dim3 block, size_t shared) {
  const unsigned limit = 65535;
  unsigned long long threads = 1ull * block.x * block.y * block.z;
  unsigned long long blocks = 1ull * grid.x * grid.y * grid.z;
  if (!threads || threads > 1024 || block.z > 64 || !blocks || grid.x > 2147483647u ||
      grid.y > limit || grid.z > limit)
    fail("invalid launch: grid (%u, %u, %u), block (%u, %u, %u)", grid.x, grid.y, grid.z, block.x,
         block.y, block.z);
  else if (shared > 48 * 1024)
    fail("invalid launch: %zu bytes of dynamic shared memory are more than 48 KiB", shared);
  return !message[0];
}

// every block of the grid; what fibers.cpp and threads.cpp are about
static void run(const Entry* entry, void** arguments, Memory statics, size_t dynamic);
} // namespace emulator

extern "C" {
const char* emulator_error() { return emulator::message; }
void emulator_seed(unsigned seed) { emulator::seed = seed; }
int emulator_launch(const emulator::Entry* entry, void** arguments, const unsigned* grid,
                    const unsigned* block, size_t shared, emulator::Memory statics) {
  using namespace emulator;
  message[0] = 0;
  grid_size = dim3(grid[0], grid[1], grid[2]);
  block_size = dim3(block[0], block[1], block[2]);
  if (!launchable(grid_size, block_size, shared)) return 1;
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, shared ? shared : 1)) return fail("no memory"), 1;
  dynamic_shared = static_cast<unsigned char*>(memory);
  run(entry, arguments, statics, shared);
  free(memory);
  return message[0] != 0;
}
}
