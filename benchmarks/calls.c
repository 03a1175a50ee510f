/* Measures the C library from a C program: seconds of the first call, nanoseconds of small ones, seconds of large reads.
 *
 *     calls VMRS          all of it
 *     calls VMRS GVA      the first call, and the first translation, of this address
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmsavedstatedump.h"

#define CALLS 20000
#define PASSES 5
#define PIECE (16u << 20)

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(HRESULT code, const char *what)
{
    if (code != S_OK) {
        fprintf(stderr, "%s: 0x%08" PRIX32 "\n", what, (uint32_t)code);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    VM_SAVED_STATE_DUMP_HANDLE handle = NULL;
    UINT32 count, got;
    UINT64 size, eight;
    VIRTUAL_PROCESSOR_REGISTER value;
    if (argc != 2 && argc != 3)
        return 2;
    double start = now();
    GetVpCount(NULL, &count); /* brings Python up, and fails */
    double started = now();
    must(LoadSavedStateFileU8(argv[1], &handle), "load");
    double loaded = now();
    printf("start %.9f\nload %.9f\n", started - start, loaded - started);

    if (argc == 3) {
        UINT64 gva = strtoull(argv[2], NULL, 0);
        start = now();
        must(GuestVirtualAddressToPhysicalAddress(handle, 0, gva, &eight, NULL), "translate");
        printf("translation %.9f\n", now() - start);
        return 0;
    }
    start = now();
    for (int n = 0; n < CALLS; n++)
        must(GetVpCount(handle, &count), "count");
    printf("count %.9f\n", (now() - start) / CALLS);
    start = now();
    for (int n = 0; n < CALLS; n++)
        must(GetRegisterValue(handle, 0, X64_RegisterRip, &value), "register");
    printf("register %.9f\n", (now() - start) / CALLS);
    start = now();
    for (int n = 0; n < CALLS; n++)
        must(ReadGuestPhysicalAddress(handle, (UINT64)(n % 64) * 4096, &eight, sizeof eight, &got), "eight");
    printf("eight %.9f\n", (now() - start) / CALLS);

    must(GetGuestRawSavedMemorySize(handle, &size), "size");
    char *buffer = malloc(PIECE);
    memset(buffer, 0, PIECE);
    must(ReadGuestPhysicalAddress(handle, 0, buffer, PIECE, &got), "warm"); /* what is imported when it is first needed */
    double best = 1e9;
    for (int pass = 0; pass < PASSES; pass++) {
        start = now();
        for (UINT64 done = 0; done < size; done += got) { /* the states measured have no holes */
            must(ReadGuestPhysicalAddress(handle, done, buffer, PIECE, &got), "large");
            must(got > 0 ? S_OK : E_FAIL, "a hole");
        }
        double took = now() - start;
        best = took < best ? took : best;
    }
    printf("large %.9f\n", best);
    free(buffer);
    return 0;
}
