#include "map_guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>

namespace kotoba {

// An entry of a list that only grows, so that the handler can walk it at any moment. Free: data is null.
struct WatchedMap {
  std::atomic<unsigned> version{0};
  std::atomic<std::byte*> data{nullptr};
  std::atomic<size_t> bytes{0};
  std::atomic<bool> taken{true};
  std::atomic<bool> lost{false};
  WatchedMap* next = nullptr;
};

namespace {

std::atomic<WatchedMap*> maps{nullptr};
uintptr_t page_bytes = 0;

// Only what a signal handler may do: atomics and system calls.
bool replace_lost_pages(uintptr_t address) {
  for (WatchedMap* map = maps.load(); map; map = map->next) {
    const unsigned version = map->version.load();
    const auto start = reinterpret_cast<uintptr_t>(map->data.load());
    const size_t bytes = map->bytes.load();
    if (map->version.load() != version) continue;  // being reused, so not the one that faults
    if (start == 0 || address < start || address - start >= bytes) continue;
    const uintptr_t page = address / page_bytes * page_bytes;
    map->lost = true;
    // All pages from here on are lost too; a lost one before will fault by itself.
    void* zeros = mmap(reinterpret_cast<void*>(page), start + bytes - page, PROT_READ,
                       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return zeros != MAP_FAILED;
  }
  return false;
}

// Installed with the first guard, taken back when the addon is unloaded.
class Handler {
 public:
  static void install() { static Handler handler; }

 private:
  Handler() {
    page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action = {};
    action.sa_sigaction = &on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGBUS, &action, &previous_);
  }
  ~Handler() {
    struct sigaction current;
    if (sigaction(SIGBUS, nullptr, &current) == 0 && current.sa_sigaction == &on_bus_error)
      sigaction(SIGBUS, &previous_, nullptr);
  }

  static void on_bus_error(int signal, siginfo_t* info, void* context) {
    if (replace_lost_pages(reinterpret_cast<uintptr_t>(info->si_addr))) return;
    // Not ours: whoever was there before, or the default, which the repeated read then meets.
    if ((previous_.sa_flags & SA_SIGINFO) && previous_.sa_sigaction)
      previous_.sa_sigaction(signal, info, context);
    else if (previous_.sa_handler != SIG_DFL && previous_.sa_handler != SIG_IGN)
      previous_.sa_handler(signal);
    else
      sigaction(SIGBUS, &previous_, nullptr);
  }

  inline static struct sigaction previous_ = {};
};

WatchedMap* free_entry() {
  for (WatchedMap* map = maps.load(); map; map = map->next)
    if (!map->taken.exchange(true)) return map;
  auto* map = new WatchedMap;  // never freed: the handler may be looking at it
  map->next = maps.load();
  while (!maps.compare_exchange_weak(map->next, map)) {
  }
  return map;
}

}  // namespace

MapGuard::MapGuard(std::byte* data, size_t bytes) {
  Handler::install();
  map_ = free_entry();
  map_->version++;
  map_->lost = false;
  map_->bytes = bytes;
  map_->data = data;
}

MapGuard::~MapGuard() {
  map_->data = nullptr;
  map_->taken = false;
}

bool MapGuard::lost_pages() const { return map_->lost; }

}  // namespace kotoba
