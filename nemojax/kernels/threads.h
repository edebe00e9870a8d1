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

// What the threads of one call share. It outlives the call: a thread that begins late finds no task, and goes.
struct Work {
  int64_t tasks;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::condition_variable all_done;
  int64_t done = 0;

  template <typename Function>
  void Run(const Function& task) {
    int64_t finished = 0;
    for (int64_t index; (index = next.fetch_add(1)) < tasks; ++finished) task(index);
    if (finished == 0) return;
    std::lock_guard<std::mutex> lock(mutex);
    if ((done += finished) == tasks) all_done.notify_all();
  }

  void Wait() {
    std::unique_lock<std::mutex> lock(mutex);
    all_done.wait(lock, [this] { return done == tasks; });
  }
};

// Calls `task(index)` for each index below `tasks`, by all threads. A thread that begins late still holds a copy of
// `task`: what it refers to must be its own, or used by tasks alone.
template <typename Function>
void ForTasks(xla::ffi::ThreadPool& pool, int64_t tasks, const Function& task) {
  auto work = std::make_shared<Work>();
  work->tasks = tasks;
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), tasks) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule([work, task] { work->Run(task); });
  work->Run(task);
  work->Wait();
}

}  // namespace nemojax
