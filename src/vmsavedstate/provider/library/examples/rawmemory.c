/* Writes the saved memory of a virtual machine to a file: all chunks one after another, without the holes between them.
 *
 *     rawmemory guest.vmrs memory.raw
 *     rawmemory guest.bin guest.vsv memory.raw
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmsavedstatedump.h"

#define PIECE (2u << 20)

/* 0 when everything was written; a short file never passes for a whole one. */
static int write_memory(VM_SAVED_STATE_DUMP_HANDLE handle, FILE *out)
{
    UINT64 size = 0, done = 0;
    char *buffer = malloc(PIECE);
    HRESULT code = buffer != NULL ? GetGuestRawSavedMemorySize(handle, &size) : E_OUTOFMEMORY;
    while (code == S_OK && done < size) {
        UINT32 got = 0;
        code = ReadGuestRawSavedMemory(handle, done, buffer, PIECE, &got);
        if (code == S_OK && (got == 0 || fwrite(buffer, 1, got, out) != got))
            code = E_FAIL;
        done += got;
    }
    if (code != S_OK)
        fprintf(stderr, "rawmemory: 0x%08" PRIX32 " at 0x%" PRIx64 " of 0x%" PRIx64 " bytes\n", (uint32_t)code, done, size);
    free(buffer);
    return code != S_OK;
}

int main(int argc, char **argv)
{
    VM_SAVED_STATE_DUMP_HANDLE handle = NULL;
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: %s VMRS OUT | BIN VSV OUT\n", argv[0]);
        return 2;
    }
    HRESULT code = argc == 3 ? LoadSavedStateFileU8(argv[1], &handle) : LoadSavedStateFilesU8(argv[1], argv[2], &handle);
    if (code != S_OK) {
        fprintf(stderr, "rawmemory: %s: 0x%08" PRIX32 "; set VMSAVEDSTATE_LOG=- to see why\n", argv[1], (uint32_t)code);
        return 1;
    }
    FILE *out = fopen(argv[argc - 1], "wbx"); /* x: a file that exists is not overwritten */
    if (out == NULL)
        perror(argv[argc - 1]);
    int failed = out == NULL || write_memory(handle, out);
    if (out != NULL && fclose(out) != 0) {
        perror(argv[argc - 1]);
        failed = 1;
    }
    ReleaseSavedStateFiles(handle);
    return failed;
}
