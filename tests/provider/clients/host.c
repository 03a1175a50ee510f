/* A program that opens the library itself, for itself alone, as tools with plug-ins do; and looks at what it left behind.
 *
 *     host LIBRARY VMRS
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "vmsavedstatedump.h"

typedef HRESULT (*load_function)(LPCSTR, VM_SAVED_STATE_DUMP_HANDLE *);
typedef HRESULT (*translate_function)(VM_SAVED_STATE_DUMP_HANDLE, UINT32, UINT64, UINT64 *, UINT64 *);
typedef HRESULT (*release_function)(VM_SAVED_STATE_DUMP_HANDLE);

static HRESULT once(const char *library, const char *path)
{
    VM_SAVED_STATE_DUMP_HANDLE handle = NULL;
    UINT64 gpa = 0, unmapped = 0;
    void *module = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (module == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return E_UNEXPECTED;
    }
    load_function load = (load_function)dlsym(module, "LoadSavedStateFileU8");
    translate_function translate = (translate_function)dlsym(module, "GuestVirtualAddressToPhysicalAddress");
    release_function release = (release_function)dlsym(module, "ReleaseSavedStateFiles");
    HRESULT code = load(path, &handle);
    if (code == S_OK)
        code = translate(handle, 0, 0xFFFFFFFF80100700u, &gpa, &unmapped);
    if (code == S_OK && gpa != 0x100700)
        code = E_FAIL;
    if (handle != NULL)
        release(handle);
    dlclose(module);
    return code;
}

int main(int argc, char **argv)
{
    struct sigaction before[3], after[3];
    int signals[3] = {SIGINT, SIGPIPE, SIGTERM};
    char locale[64];
    if (argc != 3)
        return 2;
    for (int n = 0; n < 3; n++)
        sigaction(signals[n], NULL, &before[n]);
    snprintf(locale, sizeof locale, "%s", setlocale(LC_ALL, NULL));
    for (int turn = 0; turn < 3; turn++)
        printf("0x%08" PRIX32 "\n", (uint32_t)once(argv[1], argv[2]));
    for (int n = 0; n < 3; n++) {
        sigaction(signals[n], NULL, &after[n]);
        if (before[n].sa_handler != after[n].sa_handler)
            printf("signal %d was taken\n", signals[n]);
    }
    if (strcmp(locale, setlocale(LC_ALL, NULL)) != 0)
        printf("the locale was changed\n");
    return 42; /* the host's own, whatever the library does */
}
