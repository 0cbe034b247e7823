// Memory of the host that copies work with while the host goes on. While a copy is under way the host may not write what is read, nor
// touch what is written: its pages are protected until the host has waited, and who touches them all the same is told and stopped.
// The driver itself works with a second mapping of the same pages.

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#if defined(__x86_64__)
#include <ucontext.h>
#endif

#include "driver.h"

namespace driver {

struct InFlight {
    char *start, *end;
    /// The device writes there.
    bool written;
    unsigned stream;
    uint32_t number;
    const char* name;
};

struct Pinned {
    char *user, *alias;
    size_t bytes, mapped;
    std::vector<InFlight> in_flight;
};

constexpr size_t PAGE = 4096;

static std::vector<Pinned>& all_pinned() {
    static auto* all = new std::vector<Pinned>;
    return *all;
}

static Pinned* find(const void* address) {
    for (Pinned& one : all_pinned()) {
        if (size_t(static_cast<const char*>(address) - one.user) < one.mapped) return &one;
    }
    return nullptr;
}

static int protection(const Pinned& memory, const char* page) {
    int allowed = PROT_READ | PROT_WRITE;
    for (const InFlight& copy : memory.in_flight) {
        if (copy.start < page + PAGE && page < copy.end) allowed &= copy.written ? PROT_NONE : PROT_READ;
    }
    return allowed;
}

static void protect(const Pinned& memory, char* start, char* end) {
    char* first = memory.user + (start - memory.user) / PAGE * PAGE;
    while (first < end) {
        int allowed = protection(memory, first);
        char* last = first + PAGE;
        while (last < end && protection(memory, last) == allowed) last += PAGE;
        mprotect(first, size_t(last - first), allowed);
        first = last;
    }
}

static struct sigaction previous_segv, previous_trap;

#if defined(__x86_64__)
/// Pages that one instruction of this thread was let at.
static thread_local char* let_at[4];
static thread_local unsigned num_let;
constexpr long long TRAP_FLAG = 0x100;

static void on_trap(int number, siginfo_t* info, void* context) {
    if (num_let == 0) {
        if (previous_trap.sa_flags & SA_SIGINFO) return previous_trap.sa_sigaction(number, info, context);
        if (previous_trap.sa_handler != SIG_DFL && previous_trap.sa_handler != SIG_IGN) return previous_trap.sa_handler(number);
        signal(SIGTRAP, SIG_DFL);
        raise(SIGTRAP);
        return;
    }
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    std::lock_guard<std::mutex> guard(state().lock);
    while (num_let > 0) {
        char* page = let_at[--num_let];
        if (Pinned* memory = find(page)) protect(*memory, page, page + PAGE);
    }
}
#endif

static void hand_on(int number, siginfo_t* info, void* context) {
    if (previous_segv.sa_flags & SA_SIGINFO) return previous_segv.sa_sigaction(number, info, context);
    if (previous_segv.sa_handler != SIG_DFL && previous_segv.sa_handler != SIG_IGN) return previous_segv.sa_handler(number);
    signal(SIGSEGV, SIG_DFL);
}

/// Only code outside the driver touches these addresses, so that this thread does not hold the lock.
static void on_fault(int number, siginfo_t* info, void* context) {
    char* address = static_cast<char*>(info->si_addr);
    std::unique_lock<std::mutex> guard(state().lock);
    Pinned* memory = find(address);
    if (!memory) {
        guard.unlock();
        return hand_on(number, info, context);
    }
    for (const InFlight& copy : memory->in_flight) {
        if (address < copy.start || address >= copy.end) continue;
        char text[400];
        int length = std::snprintf(text, sizeof text,
                                   "emulated GPU: the host touches byte %zu of %zu of pinned memory, which operation %u of stream %u (%s) is to %s; "
                                   "nobody has waited for it\n",
                                   size_t(address - memory->user), memory->bytes, copy.number, copy.stream, copy.name, copy.written ? "write" : "read");
        if (write(2, text, size_t(length)) < 0) _exit(1);
        signal(SIGABRT, SIG_DFL);
        abort();
    }
    // Somebody has waited in between, or it is the neighbour of what is under way.
    char* page = memory->user + (address - memory->user) / PAGE * PAGE;
    if (protection(*memory, page) == (PROT_READ | PROT_WRITE)) return;
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
#if defined(__x86_64__)
    if (num_let < 4) let_at[num_let++] = page;
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
#endif
}

static void watch() {
    static bool watching = false;
    if (watching) return;
    watching = true;
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    action.sa_sigaction = on_fault;
    sigaction(SIGSEGV, &action, &previous_segv);
#if defined(__x86_64__)
    action.sa_sigaction = on_trap;
    sigaction(SIGTRAP, &action, &previous_trap);
#endif
}

Status allocate_pinned(size_t bytes, void** to) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (Status status = check_uncaptured("an allocation of pinned memory")) return status;
    if (bytes == 0) return misuse(INVALID_VALUE, "an allocation of no bytes");
    watch();
    size_t mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    int file = memfd_create("pinned", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, off_t(mapped)) != 0) return OUT_OF_MEMORY;
    void* user = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    void* alias = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (user == MAP_FAILED || alias == MAP_FAILED) return OUT_OF_MEMORY;
    all_pinned().push_back({static_cast<char*>(user), static_cast<char*>(alias), bytes, mapped, {}});
    state().counters.pinned_allocations++;
    *to = user;
    return OK;
}

Status release_pinned(void* address) {
    Gpu* gpu;
    if (Status status = current(gpu)) return status;
    if (Status status = check_uncaptured("a free of pinned memory")) return status;
    auto& all = all_pinned();
    auto found = std::find_if(all.begin(), all.end(), [&](const Pinned& one) { return one.user == address; });
    if (found == all.end()) return misuse(INVALID_VALUE, "a free of pinned memory that is not allocated");
    if (!found->in_flight.empty()) {
        const InFlight& copy = found->in_flight[0];
        return fail(*gpu, ILLEGAL_ADDRESS, "pinned memory is freed while operation " + std::to_string(copy.number) + " of stream " +
                                               std::to_string(copy.stream) + " (" + copy.name + "), for which nobody has waited, works with it");
    }
    munmap(found->user, found->mapped);
    munmap(found->alias, found->mapped);
    all.erase(found);
    state().counters.pinned_frees++;
    return OK;
}

bool is_pinned(const void* address, size_t bytes) {
    const Pinned* memory = find(address);
    return memory && static_cast<const char*>(address) + bytes <= memory->user + memory->bytes;
}

char* behind(const void* address) {
    const Pinned* memory = find(address);
    return memory ? memory->alias + (static_cast<const char*>(address) - memory->user) : const_cast<char*>(static_cast<const char*>(address));
}

Status pin_in_flight(const Operation& operation) {
    const bool written = operation.kind == Operation::TO_HOST;
    if (!written && (operation.kind != Operation::TO_DEVICE || !operation.staged.empty())) return OK;
    char* start = written ? operation.to : const_cast<char*>(operation.from);
    Pinned* memory = find(start);
    if (!memory) return OK;
    char* end = start + operation.bytes;
    for (const InFlight& copy : memory->in_flight) {
        if (copy.start >= end || start >= copy.end || !(copy.written || written)) continue;
        if (operation.clock.get(copy.stream) >= copy.number) continue;
        return fail(*operation.stream->gpu, ILLEGAL_ADDRESS,
                    describe(operation) + " " + (written ? "writes" : "reads") + " pinned memory that operation " + std::to_string(copy.number) +
                        " of stream " + std::to_string(copy.stream) + " (" + copy.name + ") works with, and nothing orders the two");
    }
    memory->in_flight.push_back({start, end, written, operation.stream->id, operation.number, operation.name});
    protect(*memory, start, end);
    return OK;
}

void unpin_reached() {
    const Clock& host = state().host;
    for (Pinned& memory : all_pinned()) {
        for (size_t i = memory.in_flight.size(); i-- > 0;) {
            InFlight copy = memory.in_flight[i];
            if (host.get(copy.stream) < copy.number) continue;
            memory.in_flight.erase(memory.in_flight.begin() + long(i));
            protect(memory, copy.start, copy.end);
        }
    }
}

}  // namespace driver
