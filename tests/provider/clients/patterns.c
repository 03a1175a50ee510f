/* Calls the library the way its known public clients do, and writes what it read: the test compares it with Python's.
 *
 *     patterns OUT_PHYSICAL OUT_RAW VMRS | BIN VSV
 *
 * OUT_PHYSICAL gets the chunks one after another, read by physical address on four threads in pieces of up to 16 MiB;
 * OUT_RAW the raw stream in pieces of 10 MiB. Compiles for both generations and both widths of WCHAR.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmsavedstatedump.h"

#define THREADS 4
#define RUN (16u << 20)
#define RAW (10u << 20)
#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

static VM_SAVED_STATE_DUMP_HANDLE handle;
static GPA_MEMORY_CHUNK *chunks;
static UINT64 chunk_count;
static int physical;

/* ASCII is enough for the tests' paths. */
static WCHAR *wide(const char *text)
{
    WCHAR *out = calloc(strlen(text) + 1, sizeof *out);
    for (size_t n = 0; text[n] != '\0'; n++)
        out[n] = (unsigned char)text[n];
    return out;
}

/* Every fourth run; what a call returns is ignored, as one client does, and only the bytes it delivered count. */
static void *read_runs(void *argument)
{
    UINT64 number = 0, raw = 0, turn = (UINT64)(uintptr_t)argument;
    char *buffer = malloc(RUN);
    for (UINT64 n = 0; n < chunk_count; n++) {
        UINT64 start = chunks[n].GuestPhysicalStartPageIndex * 4096, size = chunks[n].PageCount * 4096;
        for (UINT64 done = 0; done < size; done += RUN, number++) {
            UINT32 wanted = size - done < RUN ? (UINT32)(size - done) : RUN, got = 1;
            if (number % THREADS != turn)
                continue;
            ReadGuestPhysicalAddress(handle, start + done, buffer, wanted, &got);
            CHECK(pwrite(physical, buffer, got, (off_t)(raw + done)) == (ssize_t)got);
        }
        raw += size;
    }
    free(buffer);
    return NULL;
}

static void size_and_get_chunks(void)
{
    UINT64 page_size = 77;
    chunk_count = ~(UINT64)0; /* with no array it means nothing */
    CHECK(GetGuestPhysicalMemoryChunks(handle, &page_size, NULL, &chunk_count) == E_OUTOFMEMORY);
    CHECK(chunk_count > 0 && page_size == 77);
    UINT64 needed = chunk_count;
    chunk_count = 0;
    CHECK(GetGuestPhysicalMemoryChunks(handle, &page_size, NULL, &chunk_count) == E_OUTOFMEMORY && chunk_count == needed);
    chunks = calloc((size_t)needed + 7, sizeof *chunks);
    chunk_count = needed - 1;
    CHECK(GetGuestPhysicalMemoryChunks(handle, &page_size, chunks, &chunk_count) == E_OUTOFMEMORY);
    CHECK(chunk_count == needed && chunks[0].PageCount == 0);
    chunk_count = needed + 7;
    CHECK(GetGuestPhysicalMemoryChunks(handle, &page_size, chunks, &chunk_count) == S_OK);
    CHECK(chunk_count == needed && page_size == 4096 && chunks[needed].PageCount == 0);
}

static void read_registers(void)
{
    UINT32 count = 0;
    VIRTUAL_PROCESSOR_ARCH architecture = (VIRTUAL_PROCESSOR_ARCH)77;
    VIRTUAL_PROCESSOR_REGISTER cr3, rip;
    CHECK(GetVpCount(handle, &count) == S_OK && count > 0);
    CHECK(GetArchitecture(handle, 0, &architecture) == S_OK);
    for (UINT32 vp = 0; vp < count; vp++) {
#if VMSAVEDSTATE_2021
        CHECK(GetRegisterValue(handle, vp, X64_RegisterCr3, &cr3) == S_OK);
        CHECK(GetRegisterValue(handle, vp, X64_RegisterRip, &rip) == S_OK);
        printf("%" PRIu32 " %d %" PRIx64 " %" PRIx64 "\n", vp, (int)architecture, cr3.Reg64, rip.Reg64);
#else
        memset(&cr3, 0, sizeof cr3);
        cr3.Architecture = Arch_x64;
        rip = cr3;
        cr3.RegisterId_x64 = X64_RegisterCr3;
        rip.RegisterId_x64 = X64_RegisterRip;
        CHECK(GetRegisterValue(handle, vp, &cr3) == S_OK && GetRegisterValue(handle, vp, &rip) == S_OK);
        printf("%" PRIu32 " %d %" PRIx64 " %" PRIx64 "\n", vp, (int)architecture, cr3.RegisterValue, rip.RegisterValue);
        cr3.RegisterId = 0xCCCCCCCC; /* a caller that forgot to set it */
        CHECK(GetRegisterValue(handle, vp, &cr3) == E_INVALIDARG);
#endif
    }
}

static void read_physical(void)
{
    pthread_t threads[THREADS];
    for (uintptr_t n = 0; n < THREADS; n++)
        CHECK(pthread_create(&threads[n], NULL, read_runs, (void *)n) == 0);
    for (int n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);
}

/* 12 bytes across a page at an odd address, and the last bytes of the last chunk. */
static void read_odd(void)
{
    unsigned char odd[12], end[64];
    UINT32 got = 0;
    UINT64 last = (chunks[chunk_count - 1].GuestPhysicalStartPageIndex + chunks[chunk_count - 1].PageCount) * 4096;
    CHECK(ReadGuestPhysicalAddress(handle, chunks[0].GuestPhysicalStartPageIndex * 4096 + 4091, odd, sizeof odd, &got) == S_OK);
    CHECK(got == sizeof odd);
    for (size_t n = 0; n < sizeof odd; n++)
        printf("%02x", odd[n]);
    CHECK(ReadGuestPhysicalAddress(handle, last - 5, end, sizeof end, &got) == S_OK && got == 5);
    CHECK(ReadGuestPhysicalAddress(handle, last, end, sizeof end, &got) == S_OK && got == 0);
    CHECK(ReadGuestPhysicalAddress(handle, last - 5, end, 5, NULL) == S_OK); /* bytesRead is optional */
    printf("\n");
}

static void read_raw(int out)
{
    UINT64 size = 0, done = 0;
    UINT32 got = 77;
    char *buffer = malloc(RAW);
    CHECK(GetGuestRawSavedMemorySize(handle, &size) == S_OK);
    while (done < size) {
        CHECK(ReadGuestRawSavedMemory(handle, done, buffer, RAW, &got) == S_OK);
        CHECK(got == (size - done < RAW ? size - done : RAW) && write(out, buffer, got) == (ssize_t)got);
        done += got;
    }
    CHECK(ReadGuestRawSavedMemory(handle, size, buffer, RAW, &got) == S_OK && got == 0);
    CHECK(ReadGuestRawSavedMemory(handle, size + 1, buffer, RAW, &got) == E_INVALIDARG && got == 0);
    free(buffer);
}

int main(int argc, char **argv)
{
    CHECK(argc == 4 || argc == 5);
    physical = open(argv[1], O_WRONLY | O_CREAT | O_EXCL, 0600);
    int raw = open(argv[2], O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(physical >= 0 && raw >= 0);
    WCHAR *first = wide(argv[3]), *second = argc == 5 ? wide(argv[4]) : NULL;
    CHECK((second ? LoadSavedStateFiles(first, second, &handle) : LoadSavedStateFile(first, &handle)) == S_OK);
    size_and_get_chunks();
    read_registers();
    read_physical();
    read_odd();
    read_raw(raw);
    CHECK(ReleaseSavedStateFiles(handle) == S_OK);
    CHECK(ReleaseSavedStateFiles(handle) == E_INVALIDARG);
    CHECK(close(physical) == 0 && close(raw) == 0);
    free(chunks);
    free(first);
    free(second);
    return 0;
}
