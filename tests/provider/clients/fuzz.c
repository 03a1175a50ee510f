/* Throws random calls at the library from several threads for some seconds, and looks at everything it gets back.
 *
 *     fuzz SECONDS SEED PATH...
 *
 * Buffers end where unreadable memory begins, so that one byte too many ends the program. Handles are those of PATHs that
 * load, released ones, and made-up ones. Prints how many calls there were.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "vmsavedstatedump.h"

#define THREADS 3
#define SLOTS 8
#define ROOM ((size_t)1 << 32) /* as large as a buffer of the interface can be; only what is touched exists */
#define UNTOUCHED 0x5A5A5A5A5A5A5A5Aull
#define KERNEL 0xFFFFFFFF80100000ull

static _Atomic(uintptr_t) slots[SLOTS];
static atomic_ulong calls;
static int path_count;
static char **paths;
static time_t end;

struct state {
    uint64_t seed;
    char *room_end;
    const char *last;
};

static void broken(const struct state *s, const char *what, HRESULT code)
{
    fprintf(stderr, "fuzz: %s: %s (0x%08" PRIX32 ")\n", s->last, what, (uint32_t)code);
    abort();
}

static uint64_t next(struct state *s)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    return s->seed ^= s->seed << 17;
}

static uint64_t below(struct state *s, uint64_t limit)
{
    return next(s) % limit;
}

/* Numbers where things happen: small, near powers of two, near the edges of the guest's memory. */
static uint64_t number(struct state *s)
{
    switch (below(s, 6)) {
    case 0:
        return below(s, 4);
    case 1:
        return ((uint64_t)1 << below(s, 64)) + below(s, 5) - 2;
    case 2:
        return KERNEL + below(s, 0x4000);
    case 3:
        return 0x9F000 + below(s, 0x3000);
    case 4:
        return below(s, 0x1100000);
    default:
        return next(s);
    }
}

static VM_SAVED_STATE_DUMP_HANDLE some_handle(struct state *s)
{
    if (below(s, 16) == 0)
        return (VM_SAVED_STATE_DUMP_HANDLE)(uintptr_t)number(s);
    return (VM_SAVED_STATE_DUMP_HANDLE)atomic_load(&slots[below(s, SLOTS)]);
}

static UINT32 some_vp(struct state *s)
{
    return below(s, 4) ? (UINT32)below(s, 3) : (UINT32)number(s);
}

/* The place of an output of `size` bytes that ends at forbidden memory, marked; NULL at times. */
static void *output(struct state *s, size_t size)
{
    if (below(s, 12) == 0)
        return NULL;
    memset(s->room_end - size, 0x5A, size);
    return s->room_end - size;
}

static HRESULT checked(struct state *s, HRESULT code)
{
    atomic_fetch_add(&calls, 1);
    if (code > 0)
        broken(s, "a success that is not S_OK", code);
    return code;
}

/* After a failure an output is as it was. */
static void simple(struct state *s, HRESULT code, const void *place, size_t size)
{
    uint64_t mark = UNTOUCHED;
    if (checked(s, code) != S_OK && place != NULL && memcmp(place, &mark, size) != 0)
        broken(s, "an output was touched by a failed call", code);
    if (code == S_OK && place == NULL)
        broken(s, "success without a place for the output", code);
}

static void load(struct state *s)
{
    uintptr_t *place = output(s, sizeof *place);
    const char *path = below(s, 20) ? paths[below(s, (uint64_t)path_count)] : NULL;
    s->last = "LoadSavedStateFile";
    HRESULT code = checked(s, below(s, 4) ? LoadSavedStateFileU8(path, (VM_SAVED_STATE_DUMP_HANDLE *)place)
                                          : LoadSavedStateFilesU8(path, paths[below(s, (uint64_t)path_count)],
                                                                  (VM_SAVED_STATE_DUMP_HANDLE *)place));
    if (place != NULL && (code == S_OK) != (*place != 0))
        broken(s, "a handle after a failure, or none after success", code);
    if (code == S_OK) {
        uintptr_t old = atomic_exchange(&slots[below(s, SLOTS)], *place);
        if (old != 0 && below(s, 8)) {
            s->last = "ReleaseSavedStateFiles";
            checked(s, ReleaseSavedStateFiles((VM_SAVED_STATE_DUMP_HANDLE)old));
        }
    }
}

static void read_some(struct state *s)
{
    static const size_t sizes[] = {0, 1, 12, 4096, 5000, 1 << 20, (16 << 20) + 3, ROOM - 1, ROOM - 4096};
    size_t size = sizes[below(s, below(s, 40) ? 6 : sizeof sizes / sizeof *sizes)];
    char *buffer = below(s, 20) ? s->room_end - size : NULL;
    UINT32 got = 0x5A5A5A5A, *place = below(s, 8) ? &got : NULL;
    int raw = (int)below(s, 2);
    s->last = raw ? "ReadGuestRawSavedMemory" : "ReadGuestPhysicalAddress";
    HRESULT code = raw ? ReadGuestRawSavedMemory(some_handle(s), number(s), buffer, (UINT32)size, place)
                       : ReadGuestPhysicalAddress(some_handle(s), number(s), buffer, (UINT32)size, place);
    checked(s, code);
    if (place != NULL && (code != S_OK ? got != 0 : got > size))
        broken(s, "bytesRead is wrong", code);
    if (buffer == NULL && code == S_OK)
        broken(s, "success without a buffer", code);
    if (size > (1 << 20) && got > (1 << 20))
        madvise(s->room_end - ROOM, ROOM, MADV_DONTNEED);
}

static void chunks(struct state *s)
{
    UINT64 count = below(s, 2) ? number(s) : below(s, 4), *page_size = output(s, 8);
    size_t room = count < 64 ? (size_t)count : 64; /* a larger count is a lie, and goes with NULL only */
    GPA_MEMORY_CHUNK *array = count > 64 || below(s, 4) == 0 ? NULL : (void *)(s->room_end - 64 - room * sizeof *array);
    UINT64 given = count;
    if (page_size != NULL)
        page_size = memset(s->room_end - 4096, 0x5A, 8);
    s->last = "GetGuestPhysicalMemoryChunks";
    HRESULT code = checked(s, GetGuestPhysicalMemoryChunks(some_handle(s), page_size, array, &count));
    if (code == S_OK && (array == NULL || count > given || *page_size != 4096))
        broken(s, "chunks where there is no room", code);
    if (code != S_OK && page_size != NULL && *page_size != UNTOUCHED)
        broken(s, "the page size was touched", code);
}

static void translate(struct state *s)
{
    UINT64 *gpa = output(s, 8);
    s->last = "GuestVirtualAddressToPhysicalAddress";
#if VMSAVEDSTATE_2021
    UINT64 unmapped = 0, *place = below(s, 4) ? &unmapped : NULL;
    simple(s, GuestVirtualAddressToPhysicalAddress(some_handle(s), some_vp(s), number(s), gpa, place), gpa, 8);
#else
    simple(s, GuestVirtualAddressToPhysicalAddress(some_handle(s), some_vp(s), number(s), gpa), gpa, 8);
#endif
}

static void get_register(struct state *s)
{
    DWORD id = below(s, 4) ? (DWORD)below(s, 170) : (DWORD)number(s);
    s->last = "GetRegisterValue";
#if VMSAVEDSTATE_2021
    void *value = output(s, 16);
    simple(s, GetRegisterValue(some_handle(s), some_vp(s), id, value), value, 8);
#else
    VIRTUAL_PROCESSOR_REGISTER *value = output(s, 24);
    if (value != NULL) {
        value->Architecture = (VIRTUAL_PROCESSOR_ARCH)below(s, 5);
        value->RegisterId = id;
    }
    simple(s, GetRegisterValue(some_handle(s), some_vp(s), value), value == NULL ? NULL : &value->RegisterValue, 8);
#endif
}

#if VMSAVEDSTATE_2021
static BOOL CALLBACK found(PVOID context, PDOS_IMAGE_INFO image)
{
    struct state *s = context;
    if (image->PdbName == NULL)
        broken(s, "an image without a name", 0);
    return (BOOL)below(s, 2);
}

static void later(struct state *s)
{
    VM_SAVED_STATE_DUMP_HANDLE handle = some_handle(s);
    UINT32 vp = some_vp(s);
    UINT64 first = number(s), addresses[] = {0, KERNEL, ~(UINT64)0};
    switch (below(s, 9)) {
    case 0: {
        void *o = output(s, 4);
        s->last = "GetGuestEnabledVirtualTrustLevels";
        simple(s, GetGuestEnabledVirtualTrustLevels(handle, o), o, 4);
        break;
    }
    case 1: {
        void *o = output(s, 8);
        s->last = "GetGuestOsInfo";
        simple(s, GetGuestOsInfo(handle, (UINT8)below(s, 3), o), o, 8);
        break;
    }
    case 2: {
        void *o = output(s, 1);
        s->last = "GetActiveVirtualTrustLevel";
        simple(s, GetActiveVirtualTrustLevel(handle, vp, o), o, 1);
        break;
    }
    case 3:
        s->last = "ForceActiveVirtualTrustLevel";
        checked(s, ForceActiveVirtualTrustLevel(handle, vp, (UINT8)below(s, 4)));
        break;
    case 4: {
        BOOL old;
        s->last = "ForceNestedHostMode";
        checked(s, ForceNestedHostMode(handle, vp, (BOOL)below(s, 2), below(s, 2) ? &old : NULL));
        break;
    }
    case 5:
        s->last = "ScanMemoryForDosImages";
        checked(s, ScanMemoryForDosImages(handle, vp, first, first - below(s, 1 << 20), s, below(s, 8) ? found : NULL,
                                          below(s, 8) ? addresses : NULL, (DWORD)below(s, 4)));
        break;
    case 6: {
        LPSTR text = NULL;
        s->last = "CallStackUnwind";
        if (checked(s, CallStackUnwindU8(handle, vp, NULL, 0, 10, &text)) == S_OK || text != NULL)
            broken(s, "a call stack from nowhere", 0);
        break;
    }
    case 7: {
        void *o = output(s, 4);
        s->last = "IsNestedVirtualizationEnabled";
        simple(s, IsNestedVirtualizationEnabled(handle, o), o, 4);
        break;
    }
    default:
        s->last = "GetSavedStateSymbolProviderHandle";
        if (GetSavedStateSymbolProviderHandle(handle) != NULL)
            broken(s, "a symbol provider", 0);
    }
}
#endif

static void small(struct state *s)
{
    VM_SAVED_STATE_DUMP_HANDLE handle = some_handle(s);
    UINT32 vp = some_vp(s);
    void *o = output(s, 4);
    switch (below(s, 9)) {
    case 0:
        s->last = "GetVpCount";
        simple(s, GetVpCount(handle, o), o, 4);
        break;
    case 1:
        s->last = "GetArchitecture";
        simple(s, GetArchitecture(handle, vp, o), o, 4);
        break;
    case 2:
        s->last = "GetPagingMode";
        simple(s, GetPagingMode(handle, vp, o), o, 4);
        break;
    case 3:
        s->last = "InKernelSpace";
        simple(s, InKernelSpace(handle, vp, o), o, 4);
        break;
    case 4:
        s->last = "ForceArchitecture";
        checked(s, ForceArchitecture(handle, vp, (VIRTUAL_PROCESSOR_ARCH)(below(s, 6) - 1)));
        break;
    case 5:
        s->last = "ForcePagingMode";
        checked(s, ForcePagingMode(handle, vp, (PAGING_MODE)(below(s, 8) - 1)));
        break;
    case 6:
        s->last = "SetMemoryBlockCacheLimit";
        checked(s, SetMemoryBlockCacheLimit(handle, below(s, 2) ? below(s, 20) : number(s)));
        break;
    case 7:
        o = output(s, 8);
        s->last = "GuestPhysicalAddressToRawSavedMemoryOffset";
        simple(s, GuestPhysicalAddressToRawSavedMemoryOffset(handle, number(s), o), o, 8);
        break;
    default:
        s->last = "ApplyGuestMemoryFix";
        checked(s, ApplyGuestMemoryFix(handle, vp, number(s), below(s, 8) ? s->room_end - 8192 : NULL, (UINT32)below(s, 8193)));
    }
}

static void *run(void *argument)
{
    struct state s = {.seed = (uint64_t)(uintptr_t)argument * 0x9E3779B97F4A7C15ull + 1, .last = "nothing"};
    char *room = mmap(NULL, ROOM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED || mprotect(room + ROOM, 4096, PROT_NONE) != 0)
        abort();
    s.room_end = room + ROOM;
    load(&s);
    while (time(NULL) < end) {
        switch (below(&s, 12)) {
        case 0:
            if (below(&s, 10) == 0)
                load(&s);
            break;
        case 1:
        case 2:
        case 3:
            read_some(&s);
            break;
        case 4:
            chunks(&s);
            break;
        case 5:
        case 6:
            translate(&s);
            break;
        case 7:
        case 8:
            get_register(&s);
            break;
        case 9:
#if VMSAVEDSTATE_2021
            later(&s);
            break;
#endif
        default:
            small(&s);
        }
    }
    munmap(room, ROOM + 4096);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    pthread_t threads[THREADS];
    uintptr_t seed = (uintptr_t)strtoul(argv[2], NULL, 0);
    end = time(NULL) + atol(argv[1]);
    path_count = argc - 3;
    paths = argv + 3;
    for (uintptr_t n = 0; n < THREADS; n++)
        if (pthread_create(&threads[n], NULL, run, (void *)(seed * THREADS + n)) != 0)
            return 2;
    for (int n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);
    printf("%lu calls\n", atomic_load(&calls));
    return 0;
}
