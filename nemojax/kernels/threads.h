// Work in equal parts, shared by the threads of XLA's pool and the thread that calls.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace nemojax {

constexpr int kSpins = 2000;  // about 0.1 ms: a thread that sleeps takes as long to wake as a small product takes

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// What the threads of one call share. It outlives the call: a thread that begins late finds no task, and goes.
struct Work {
  int64_t tasks;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::condition_variable all_done;
  std::atomic<int64_t> done{0};

  template <typename Function, typename Setup>
  void Run(const Function& task, const Setup& setup) {
    int64_t finished = 0, index = next.fetch_add(1);
    if (index >= tasks) return;
    {
      [[maybe_unused]] const auto held = setup();
      for (; index < tasks; index = next.fetch_add(1), ++finished) task(index);
    }
    if (done.fetch_add(finished) + finished < tasks) return;
    std::lock_guard<std::mutex> lock(mutex);
    all_done.notify_all();
  }

  void Wait() {
    for (int spin = 0; spin < kSpins; ++spin, Pause()) {
      if (done.load() == tasks) return;
    }
    std::unique_lock<std::mutex> lock(mutex);
    all_done.wait(lock, [this] { return done.load() == tasks; });
  }
};

struct Nothing {};

// Calls `task(index)` for each index below `tasks`, by all threads. A thread holds what `setup()` returns while it has
// tasks. One that begins late still holds copies of both: what they refer to must be their own, or used by tasks alone.
template <typename Function, typename Setup = Nothing (*)()>
void ForTasks(xla::ffi::ThreadPool& pool, int64_t tasks, const Function& task,
              const Setup& setup = [] { return Nothing(); }) {
  auto work = std::make_shared<Work>();
  work->tasks = tasks;
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), tasks) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) {
    pool.Schedule([work, task, setup] { work->Run(task, setup); });
  }
  work->Run(task, setup);
  work->Wait();
}

constexpr int64_t kRowsTaskSize = 1 << 17;  // numbers; fewer are not worth a second thread

// Calls `task(block)` for each block of at most `each` rows, by all threads if there are many numbers.
template <typename Function>
void ForRows(xla::ffi::ThreadPool& pool, int64_t rows, int64_t inputs, int64_t each, const Function& task) {
  const int64_t blocks = (rows + each - 1) / each;
  if (rows * inputs >= kRowsTaskSize) return ForTasks(pool, blocks, task);
  for (int64_t block = 0; block < blocks; ++block) task(block);
}

constexpr int64_t kTaskValues = 1 << 14;  // read or written; fewer are not worth a thread

// Calls `task(unit)` for each unit by all threads, which take as many units at a time as have `kTaskValues` values.
template <typename Function>
void ForUnits(xla::ffi::ThreadPool& pool, int64_t units, int64_t values, const Function& task) {
  const int64_t each = std::max<int64_t>(1, kTaskValues / std::max<int64_t>(1, values));
  ForTasks(pool, (units + each - 1) / each, [=](int64_t index) {
    for (int64_t unit = index * each; unit < std::min(units, (index + 1) * each); ++unit) task(unit);
  });
}

}  // namespace nemojax
