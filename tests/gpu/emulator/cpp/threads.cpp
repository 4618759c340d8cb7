// An engine for ThreadSanitizer: one OS thread a CUDA thread, blocks one after another.
//
// Barriers alternate between two objects. With one, a thread that already leaves round k + 1
// would order itself before another that still wakes from round k, and races between them were
// missed.
#include <pthread.h>

#include <thread>

#include "engine.h"

namespace emulator {
thread_local Thread* current;
static thread_local unsigned block_rounds, warp_rounds;
static pthread_barrier_t block_barrier[2], warp_barrier[32][2];
static unsigned present[32]; // the lanes that each warp has

void meet_block(int) { pthread_barrier_wait(&block_barrier[block_rounds++ & 1]); }
void meet_warp(unsigned mask) {
  unsigned warp = current->linear >> 5;
  if ((mask & present[warp]) != present[warp])
    fail("warp mask %08x leaves out lanes: this engine only meets whole warps", mask);
  pthread_barrier_wait(&warp_barrier[warp][warp_rounds++ & 1]);
}
void pause() {}
std::uint64_t* slot(unsigned lane) { return &slots[current->linear >> 5][lane]; }

static void run(const Entry* entry, void** arguments, Memory, size_t) {
  const unsigned threads = block_size.x * block_size.y * block_size.z,
                 warps = (threads + 31) / 32;
  const unsigned blocks = grid_size.x * grid_size.y * grid_size.z;
  for (int k = 0; k < 2; ++k) {
    pthread_barrier_init(&block_barrier[k], nullptr, threads);
    for (unsigned w = 0; w < warps; ++w)
      pthread_barrier_init(&warp_barrier[w][k], nullptr, min(32u, threads - w * 32));
  }
  for (unsigned w = 0; w < warps; ++w)
    present[w] = 0xffffffffu >> (32 - min(32u, threads - w * 32));
  std::vector<std::thread> team;
  for (unsigned i = 0; i < threads; ++i)
    team.emplace_back([=] {
      Thread me = {place(i, block_size), {0, 0, 0}, i};
      current = &me;
      for (unsigned b = 0; b < blocks; ++b) {
        me.block = place(b, grid_size);
        entry->call(entry->kernel, arguments);
        meet_block(0);
      }
    });
  for (auto& thread : team) thread.join();
  for (int k = 0; k < 2; ++k) {
    pthread_barrier_destroy(&block_barrier[k]);
    for (unsigned w = 0; w < warps; ++w) pthread_barrier_destroy(&warp_barrier[w][k]);
  }
}
} // namespace emulator
