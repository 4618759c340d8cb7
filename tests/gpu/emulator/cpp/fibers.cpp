// The usual engine: every CUDA thread of a block is a fiber, and all run in one OS thread.
//
// Threads run until they wait at a barrier or return, so a run is reproducible: in order of their
// index, or, with a seed, in a random order, blocks too. A fiber runs one thread after another
// and is tied up only while its thread waits, so kernels without barriers cost one call a thread.
// It reports a barrier that not all threads reach, threads at different barriers, and deadlocks.
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include <algorithm>
#include <numeric>

#include "engine.h"

namespace emulator {
enum State { NEW, READY, AT_BLOCK, AT_WARP, DONE };

struct Fiber {
  ucontext_t context;
  jmp_buf place;
  char* stack;
  void* fake_stack = nullptr; // AddressSanitizer's
  bool started = false;
};

struct Run : Thread { // a CUDA thread and what it waits for
  State state;
  unsigned mask;
  int line;
  Fiber* fiber;
};

Thread* current;
static const size_t STACK = 128 * 1024;
static std::vector<Run> runs;
static std::vector<unsigned> order;
static std::vector<Fiber*> idle;
static Fiber* running;
static unsigned next_new; // threads order[next_new...] have not begun
static const Entry* kernel;
static void** kernel_arguments;
static std::uint64_t state_of_random = 1;

static unsigned random(unsigned below) {
  state_of_random = state_of_random * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<unsigned>(state_of_random >> 33) % below;
}
static void shuffle(std::vector<unsigned>& a) {
  for (unsigned i = static_cast<unsigned>(a.size()); i > 1; --i)
    std::swap(a[i - 1], a[random(i)]);
}

// ---- switching
// -----------------------------------------------------------------------------------
#if defined(__SANITIZE_ADDRESS__) // it must be told of every switch, and wraps longjmp
static ucontext_t outside;
static const void* outside_stack;
static size_t outside_size;
static void leave(Fiber& f) {
  __sanitizer_start_switch_fiber(&f.fake_stack, outside_stack, outside_size);
  swapcontext(&f.context, &outside);
  __sanitizer_finish_switch_fiber(f.fake_stack, &outside_stack, &outside_size);
}
static void arrived(Fiber& f) {
  __sanitizer_finish_switch_fiber(f.fake_stack, &outside_stack, &outside_size);
}
#else
static jmp_buf outside;
static void leave(Fiber& f) {
  if (!_setjmp(f.place)) _longjmp(outside, 1);
}
static void arrived(Fiber&) {}
#endif

static void work() {
  Fiber* me = running;
  arrived(*me);
  for (;;) {
    while (next_new < runs.size()) {
      Run& run = runs[order[next_new++]];
      run.fiber = me;
      run.state = READY;
      current = &run;
      kernel->call(kernel->kernel, kernel_arguments);
      static_cast<Run*>(current)->state = DONE;
      if (seed) break;
    }
    idle.push_back(me);
    leave(*me);
  }
}

static void prepare(Fiber& f) {
  f.started = true;
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack;
  f.context.uc_stack.ss_size = STACK;
  f.context.uc_link = nullptr;
  makecontext(&f.context, work, 0);
}

static void enter(Fiber* f) {
  running = f;
#if defined(__SANITIZE_ADDRESS__)
  static void* fake_stack;
  if (!f->started) prepare(*f);
  __sanitizer_start_switch_fiber(&fake_stack, f->stack, STACK);
  swapcontext(&outside, &f->context);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
  if (_setjmp(outside)) return;
  if (f->started) _longjmp(f->place, 1);
  prepare(*f);
  setcontext(&f->context);
#endif
}

static Fiber* free_fiber() {
  if (idle.empty()) {
    Fiber* f = new Fiber;
    void* stack =
        mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    f->stack = static_cast<char*>(stack);
    return f;
  }
  Fiber* f = idle.back();
  idle.pop_back();
  return f;
}

// ---- what kernels call
// ---------------------------------------------------------------------------
static Run& me() { return *static_cast<Run*>(current); }
void meet_block(int line) {
  me().line = line;
  me().state = AT_BLOCK;
  leave(*running);
}
void meet_warp(unsigned mask) {
  me().mask = mask;
  me().state = AT_WARP;
  leave(*running);
}
void pause() {
  if (seed) leave(*running);
}
std::uint64_t* slot(unsigned lane) { return &slots[current->linear >> 5][lane]; }

// ---- one block
// -----------------------------------------------------------------------------------
static unsigned count(State state) {
  return static_cast<unsigned>(
      std::count_if(runs.begin(), runs.end(), [=](const Run& r) { return r.state == state; }));
}

// all threads of the block wait at one barrier: let them go
static bool open_block(uint3 b) {
  const unsigned waiting = count(AT_BLOCK), threads = static_cast<unsigned>(runs.size());
  if (waiting < threads) {
    fail("__syncthreads reached by %u of %u threads, the others returned: block (%u, %u, %u)",
         waiting, threads, b.x, b.y, b.z);
    return false;
  }
  for (Run& run : runs) {
    if (run.line != runs[0].line) {
      fail("threads of a block wait at different __syncthreads, lines %d and %d: block (%u, %u, "
           "%u)",
           runs[0].line, run.line, b.x, b.y, b.z);
      return false;
    }
  }
  for (Run& run : runs) run.state = READY;
  return true;
}

// the lanes that wait for each other are all there: let them go
static bool open_warps() {
  bool opened = false;
  for (size_t w = 0; w < runs.size(); w += 32) {
    const size_t end = std::min(runs.size(), w + 32);
    unsigned there = 0, waiting = 0;
    for (size_t i = w; i < end; ++i) {
      there |= 1u << (i - w);
      waiting |= static_cast<unsigned>(runs[i].state == AT_WARP) << (i - w);
    }
    for (size_t i = w; i < end; ++i) {
      const unsigned wanted = runs[i].mask & there;
      if (runs[i].state != AT_WARP || (wanted & ~waiting)) continue;
      for (size_t j = w; j < end; ++j) {
        if (!(wanted >> (j - w) & 1)) continue;
        if (runs[j].mask != runs[i].mask)
          return fail("lanes of one warp meet with different masks"), false;
        runs[j].state = READY;
      }
      opened = true;
    }
  }
  return opened;
}

static bool run_block(uint3 b) {
  for (Run& run : runs) run.block = b, run.state = NEW;
  if (seed) shuffle(order);
  next_new = 0;
  const std::vector<unsigned> turn = order;
  for (;;) {
    bool ran = false;
    for (; next_new < runs.size(); ran = true) enter(free_fiber());
    for (unsigned i : turn) {
      Run& run = runs[i];
      while (run.state == READY) {
        current = &run;
        enter(run.fiber);
        ran = true;
        if (seed) break;
      }
    }
    if (message[0]) return false;
    const unsigned done = count(DONE), waiting = count(AT_BLOCK);
    if (done == runs.size()) return true;
    if (waiting && waiting + done == runs.size()) {
      if (!open_block(b)) return false;
      continue;
    }
    if (open_warps() || ran) continue;
    fail("deadlock: %u threads at __syncthreads, %u at a warp operation, %u returned: block (%u, "
         "%u, %u)",
         waiting, count(AT_WARP), done, b.x, b.y, b.z);
    return false;
  }
}

static void run(const Entry* entry, void** arguments, Memory statics, size_t dynamic) {
  kernel = entry, kernel_arguments = arguments;
  const unsigned threads = block_size.x * block_size.y * block_size.z;
  runs.resize(threads), order.resize(threads);
  std::iota(order.begin(), order.end(), 0u);
  for (unsigned i = 0; i < threads; ++i) runs[i].linear = i, runs[i].index = place(i, block_size);
  std::vector<unsigned> blocks(size_t(grid_size.x) * grid_size.y * grid_size.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  state_of_random = seed;
  if (seed) shuffle(blocks);
  for (unsigned i : blocks) {
    if (statics.size) std::memset(statics.start, 0xff, statics.size);
    std::memset(dynamic_shared, 0xff, dynamic);
    std::memset(slots, 0xff, sizeof slots);
    if (run_block(place(i, grid_size))) continue;
    idle.clear(); // fibers that still wait are given up with their stacks
    return;
  }
}
} // namespace emulator
