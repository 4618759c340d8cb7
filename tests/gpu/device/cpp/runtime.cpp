// A stand-in for the CUDA runtime and driver as CuPy calls them: memory is the host's, kernels
// run at once on the CPU (see ../emulator), everything is counted.
//
// Each function has the C signature of the one in cupy_backends.cuda.api.{runtime,driver} that it
// replaces: replace.py puts it there by that name. Those that are missing here reach the real
// runtime, which raises cudaErrorInsufficientDriver.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "signature.h"

typedef intptr_t Handle;
typedef PyObject* None; // a function that returns nothing

static const size_t TOTAL = size_t(8) << 30;
enum Status { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101 };
enum Kind { HOST_TO_HOST, TO_DEVICE, TO_HOST, DEVICE_TO_DEVICE, BY_ADDRESS };

static struct Counts {
  long launches, graphs, synchronisations, to_device, to_host, on_device, unpinned, allocations, frees;
  size_t used, peak, bytes_to_device, bytes_to_host;
} counts;

// what a CUDA graph could not capture, and what an engine must not do by accident
enum Forbidden { SYNCHRONISE = 1, ALLOCATE = 2, COPY_UNPINNED = 4, COPY_TO_HOST = 8 };
static int forbidden;
static int lost;             // not 0: the device is gone, every call returns this status
static size_t limit = TOTAL; // bytes of memory it has
static PyObject* runtime_error;

static std::map<Handle, size_t> device_memory, pinned_memory;

// what is queued, while it is recorded: names, and every argument as it was
static bool recording;
static std::vector<std::string> recorded_calls;
template <class T> static void append(std::string& call, const T& value) {
  call.append(reinterpret_cast<const char*>(&value), sizeof value);
}

static None nothing() { Py_RETURN_NONE; }
static None raise(int status) {
  PyObject* error = PyObject_CallFunction(runtime_error, "i", status);
  if (error) PyErr_SetObject(runtime_error, error);
  Py_XDECREF(error);
  return nullptr;
}
static std::vector<std::function<void()>>* graph; // while a stream is captured: what is queued
static bool refused(int what, const char* name) {
  if (lost) return raise(lost), true;
  if (!graph && !(forbidden & what)) return false;
  PyErr_Format(PyExc_RuntimeError, "%s while it is forbidden", name);
  return true;
}
template <class F> static void do_or_queue(F action) {
  if (graph)
    graph->push_back(action);
  else
    action();
}
static bool inside(const std::map<Handle, size_t>& memory, Handle p, size_t bytes) {
  auto block = memory.upper_bound(p);
  if (block == memory.begin()) return false;
  --block;
  return p + Handle(bytes) <= block->first + Handle(block->second);
}

extern "C" {
// ---- the device
// ----------------------------------------------------------------------------------
int rt_getDevice(int) { return 0; }
int rt_getDeviceCount(int) { return 1; }
int rt_driverGetVersion(int) { return 13000; }
int rt_runtimeGetVersion(int) { return 13000; }
None rt_setDevice(int device, int) { return device ? raise(INVALID_DEVICE) : nothing(); }
None rt__ensure_context() { return nothing(); }
int rt_deviceGetAttribute(int attribute, int, int) {
  switch (attribute) {
  case 8:
    return 48 * 1024; // shared memory of a block
  case 10:
    return 32; // threads of a warp
  case 16:
    return 80; // multiprocessors
  case 39:
    return 2048; // threads of a multiprocessor
  case 75:
    return 8; // compute capability 8.0
  case 76:
  case 115:
    return 0; // its minor number; memory pools
  default:
    return 1024;
  }
}
PyObject* rt_getDeviceProperties(int, int) {
  const char* name = "stand-in device (CPU)";
  return Py_BuildValue("{s:y,s:n,s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "name", name, "totalGlobalMem",
                       Py_ssize_t(TOTAL), "major", 8, "minor", 0, "multiProcessorCount", 80,
                       "warpSize", 32, "maxThreadsPerBlock", 1024, "sharedMemPerBlock", 48 * 1024,
                       "maxThreadsPerMultiProcessor", 2048);
}
PyObject* nvrtc_getVersion(int) { return Py_BuildValue("(ii)", 13, 0); }
None rt_profilerStart(int) { return nothing(); }
None rt_profilerStop(int) { return nothing(); }

// ---- memory
// --------------------------------------------------------------------------------------
Handle rt_malloc(size_t bytes, int) {
  if (refused(ALLOCATE, "allocation on the device")) return 0;
  if (counts.used + bytes > limit) return raise(OUT_OF_MEMORY), 0;
  void* memory = nullptr;
  if (posix_memalign(&memory, 512, bytes ? bytes : 1)) return raise(OUT_OF_MEMORY), 0;
  std::memset(memory, 0xff, bytes); // NaN: what is read before it is written shows
  device_memory[Handle(memory)] = bytes;
  counts.allocations++;
  counts.used += bytes;
  if (counts.used > counts.peak) counts.peak = counts.used;
  return Handle(memory);
}
None rt_free(Handle p, int) {
  auto block = device_memory.find(p);
  if (block == device_memory.end()) return p ? raise(INVALID_VALUE) : nothing();
  counts.frees++;
  counts.used -= block->second;
  device_memory.erase(block);
  std::free(reinterpret_cast<void*>(p));
  return nothing();
}
Handle rt_hostAlloc(size_t bytes, unsigned, int) {
  if (refused(ALLOCATE, "allocation of pinned memory")) return 0;
  void* memory = std::malloc(bytes ? bytes : 1);
  pinned_memory[Handle(memory)] = bytes;
  return Handle(memory);
}
None rt_freeHost(Handle p, int) {
  pinned_memory.erase(p);
  std::free(reinterpret_cast<void*>(p));
  return nothing();
}
PyObject* rt_memGetInfo(int) {
  return Py_BuildValue("(nn)", Py_ssize_t(limit - counts.used), Py_ssize_t(limit));
}
int rt_pointerGetMemoryType(Handle p, int) { return inside(device_memory, p, 0) ? 2 : 0; }

static None copy(Handle to, Handle from, size_t bytes, int kind, bool waits) {
  if (lost) return raise(lost);
  const bool to_ok = inside(device_memory, to, bytes),
             from_ok = inside(device_memory, from, bytes);
  if (kind == BY_ADDRESS)
    kind = to_ok ? (from_ok ? DEVICE_TO_DEVICE : TO_DEVICE) : from_ok ? TO_HOST : 0;
  if (bytes && (to_ok != (kind == TO_DEVICE || kind == DEVICE_TO_DEVICE)))
    return raise(INVALID_VALUE);
  if (bytes && (from_ok != (kind == TO_HOST || kind == DEVICE_TO_DEVICE)))
    return raise(INVALID_VALUE);
  if (kind == TO_DEVICE) counts.to_device++, counts.bytes_to_device += bytes;
  if (kind == TO_HOST) {
    if (refused(COPY_TO_HOST, "copy from the device to the host")) return nullptr;
    counts.to_host++, counts.bytes_to_host += bytes;
  }
  if (kind == DEVICE_TO_DEVICE)
    counts.on_device++;
  else if (waits || !inside(pinned_memory, kind == TO_DEVICE ? from : to, bytes)) {
    if (refused(COPY_UNPINNED, "copy between unpinned host memory and the device"))
      return nullptr;
    counts.unpinned++;
  }
  do_or_queue([=] { std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); });
  if (recording) {
    std::string call = "copy ";
    append(call, to), append(call, from), append(call, bytes);
    recorded_calls.push_back(call);
  }
  return nothing();
}
None rt_memcpy(Handle to, Handle from, size_t n, int kind, int) {
  return copy(to, from, n, kind, true);
}
None rt_memcpyAsync(Handle to, Handle from, size_t n, int kind, Handle, int) {
  return copy(to, from, n, kind, false);
}
None rt_memcpyPeer(Handle to, int, Handle from, int, size_t n, int) {
  return copy(to, from, n, DEVICE_TO_DEVICE, false);
}
None rt_memcpyPeerAsync(Handle to, int, Handle from, int, size_t n, Handle, int) {
  return copy(to, from, n, DEVICE_TO_DEVICE, false);
}
static None set(Handle p, int value, size_t bytes) {
  if (lost) return raise(lost);
  if (bytes && !inside(device_memory, p, bytes)) return raise(INVALID_VALUE);
  do_or_queue([=] { std::memset(reinterpret_cast<void*>(p), value, bytes); });
  if (recording) {
    std::string call = "set ";
    append(call, p), append(call, value), append(call, bytes);
    recorded_calls.push_back(call);
  }
  return nothing();
}
None rt_memset(Handle p, int value, size_t bytes, int) { return set(p, value, bytes); }
None rt_memsetAsync(Handle p, int value, size_t bytes, Handle, int) {
  return set(p, value, bytes);
}

// ---- streams and events: everything has happened by the time a call returns
// --------------------------
static Handle next_handle = 0x1000;
static std::map<Handle, double> recorded; // event: milliseconds
static None wait() {
  if (refused(SYNCHRONISE, "waiting for the device")) return nullptr;
  counts.synchronisations++;
  return nothing();
}
None rt_deviceSynchronize(int) { return wait(); }
None rt_streamSynchronize(Handle, int) { return wait(); }
None rt_eventSynchronize(Handle, int) { return wait(); }
Handle rt_streamCreate(int) { return ++next_handle; }
Handle rt_streamCreateWithFlags(unsigned, int) { return ++next_handle; }
Handle rt_streamCreateWithPriority(unsigned, int, int) { return ++next_handle; }
Handle rt_eventCreate(int) { return ++next_handle; }
Handle rt_eventCreateWithFlags(unsigned, int) { return ++next_handle; }
None rt_streamDestroy(Handle, int) { return nothing(); }
PyObject* rt_streamQuery(Handle, int) { return PyLong_FromLong(0); }
None rt_streamWaitEvent(Handle, Handle, int, void*) { return nothing(); }
int rt_streamIsCapturing(Handle, int) { return graph != nullptr; } // CuPy refuses some calls then
unsigned rt_streamGetFlags(Handle, int) { return 0; }
int rt_streamGetPriority(Handle, int) { return 0; }
None rt_eventDestroy(Handle, int) { return nothing(); }
PyObject* rt_eventQuery(Handle, int) { return PyLong_FromLong(0); }
None rt_eventRecord(Handle event, Handle, int) {
  auto now = std::chrono::steady_clock::now().time_since_epoch();
  recorded[event] = std::chrono::duration<double, std::milli>(now).count();
  return nothing();
}
float rt_eventElapsedTime(Handle from, Handle to, int) {
  return float(recorded[to] - recorded[from]);
}

// ---- the driver: modules are libraries that build.py made
// --------------------------------------------
} // extern C
struct Memory {
  void* start;
  size_t size;
};
struct Kernel {
  void* entry;
  Memory (*statics)();
};
static int (*launch)(void*, void**, const unsigned*, const unsigned*, size_t, Memory);
static const char* (*launch_error)();

static void queue_launch(Kernel* kernel, void** values, unsigned gx, unsigned gy, unsigned gz,
                         unsigned bx, unsigned by, unsigned bz, unsigned shared) {
  auto entry = static_cast<const emulator::Entry*>(kernel->entry);
  std::vector<std::string> kept;
  for (int i = 0; i < entry->count; ++i)
    kept.emplace_back(static_cast<const char*>(values[i]), entry->sizes[i]);
  graph->push_back([=]() mutable {
    std::vector<void*> arguments;
    for (auto& value : kept) arguments.push_back(&value[0]);
    unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    if (launch(kernel->entry, arguments.data(), grid, block, shared, kernel->statics()))
      PyErr_SetString(PyExc_RuntimeError, launch_error());
  });
}

template <class F> static F look_up(void* library, const char* name) {
  return reinterpret_cast<F>(dlsym(library, name));
}
static Handle missing(const char* message) {
  PyErr_SetString(PyExc_RuntimeError, message);
  return 0;
}
extern "C" {
Handle dr_moduleLoadData(PyObject* path, int) {
  const char* name = PyBytes_AsString(path);
  void* library = name ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : nullptr;
  return library || PyErr_Occurred() ? Handle(library) : missing(dlerror());
}
None dr_moduleUnload(Handle, int) { return nothing(); }
Handle dr_moduleGetFunction(Handle module, PyObject* name, int) {
  void* library = reinterpret_cast<void*>(module);
  auto find = look_up<void* (*)(const char*)>(library, "emulator_find");
  void* entry = find ? find(PyUnicode_AsUTF8(name)) : nullptr;
  if (!entry) return missing("CUDA_ERROR_NOT_FOUND: named symbol not found");
  return Handle(new Kernel{entry, look_up<Memory (*)()>(library, "emulator_statics")});
}
None dr_launchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                     unsigned by, unsigned bz, unsigned shared, Handle, Handle arguments, Handle,
                     int) {
  if (lost) return raise(lost);
  auto kernel = reinterpret_cast<Kernel*>(function);
  unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  counts.launches++;
  auto values = reinterpret_cast<void**>(arguments);
  if (recording) {
    auto entry = static_cast<const emulator::Entry*>(kernel->entry);
    std::string call = std::string(entry->name) + " ";
    append(call, grid), append(call, block);
    for (int i = 0; i < entry->count; ++i) // of CuPy's structs where the array is: their
      call.append(static_cast<const char*>(values[i]), // ends are not always written
                  entry->kinds[i][0] == 'V' ? 8 : entry->sizes[i]);
    recorded_calls.push_back(call);
  }
  if (graph) {
    queue_launch(kernel, values, gx, gy, gz, bx, by, bz, shared);
    return nothing();
  }
  if (!launch(kernel->entry, values, grid, block, shared, kernel->statics())) return nothing();
  PyErr_SetString(PyExc_RuntimeError, launch_error());
  return nullptr;
}

// ---- graphs: what was queued while a stream was captured, done once more by each launch
// ---------------------------------
None rt_streamBeginCapture(Handle, int, void*) {
  graph = new std::vector<std::function<void()>>;
  return nothing();
}
Handle rt_streamEndCapture(Handle, int) {
  Handle made = Handle(graph);
  graph = nullptr;
  return made;
}
Handle rt_graphInstantiate(Handle made, int) { return made; }
None rt_graphUpload(Handle, Handle, int) { return nothing(); }
None rt_graphLaunch(Handle made, Handle, int) {
  counts.graphs++;
  for (auto& action : *reinterpret_cast<std::vector<std::function<void()>>*>(made)) action();
  if (!PyErr_Occurred()) return nothing();
  return nullptr;
}
None rt_graphExecDestroy(Handle made, int) {
  delete reinterpret_cast<std::vector<std::function<void()>>*>(made);
  return nothing();
}
None rt_graphDestroy(Handle, int) { return nothing(); }

// for blas.cpp: note a call, and queue it where a stream is captured
void standin_note(const char* call, size_t size) {
  if (recording) recorded_calls.push_back(std::string(call, size));
}
bool standin_queue(const std::function<void()>& action) {
  if (graph) graph->push_back(action);
  return graph != nullptr;
}
int dr_funcGetAttribute(int, Handle, int) { return 0; }
int dr_occupancyMaxActiveBlocksPerMultiprocessor(Handle, int, size_t, int) { return 1; }
Handle dr_ctxGetCurrent(int) { return 1; }

// ---- for the tests
// -------------------------------------------------------------------------------
void standin_begin(PyObject* error, void* engine) {
  runtime_error = error;
  Py_INCREF(error);
  launch = look_up<decltype(launch)>(engine, "emulator_launch");
  launch_error = look_up<decltype(launch_error)>(engine, "emulator_error");
}
void standin_forbid(int what) { forbidden = what; }
void standin_record(int on) { recording = on, recorded_calls.clear(); }
PyObject* standin_recorded() {
  PyObject* calls = PyList_New(0);
  for (auto& call : recorded_calls) {
    PyObject* bytes = PyBytes_FromStringAndSize(call.data(), Py_ssize_t(call.size()));
    PyList_Append(calls, bytes);
    Py_DECREF(bytes);
  }
  return calls;
}
void standin_lose(int status) { lost = status; }
void standin_limit(size_t bytes) { limit = bytes ? bytes : TOTAL; }
PyObject* standin_counts() {
  const Counts& c = counts;
  return Py_BuildValue(
      "{s:l,s:l,s:l,s:l,s:l,s:l,s:l,s:l,s:l,s:n,s:n,s:n,s:n}", "launches", c.launches, "graphs",
      c.graphs, "synchronisations", c.synchronisations, "to_device", c.to_device, "to_host", c.to_host,
      "on_device", c.on_device, "unpinned", c.unpinned, "allocations", c.allocations, "frees",
      c.frees, "used", Py_ssize_t(c.used), "peak", Py_ssize_t(c.peak), "bytes_to_device",
      Py_ssize_t(c.bytes_to_device), "bytes_to_host", Py_ssize_t(c.bytes_to_host));
}
// another function in a module's table of C functions; its signature, which Cython checks, stays
int standin_replace(PyObject* table, const char* name, void* function) {
  PyObject* old = PyDict_GetItemString(table, name);
  if (!old) return 1;
  PyObject* made = PyCapsule_New(function, PyCapsule_GetName(old), nullptr);
  int failed = !made || PyDict_SetItemString(table, name, made);
  Py_XDECREF(made);
  return failed;
}
}
