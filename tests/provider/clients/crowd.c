/* Many threads make their first call at the same moment, to one library or to both.
 *
 *     crowd VMRS LIBRARY [LIBRARY]
 *
 * Prints the distinct answers: what loading, counting and releasing returned, and how many processors there are.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "vmsavedstatedump.h"

#define THREADS 8

typedef HRESULT (*load_function)(LPCSTR, VM_SAVED_STATE_DUMP_HANDLE *);
typedef HRESULT (*count_function)(VM_SAVED_STATE_DUMP_HANDLE, UINT32 *);
typedef HRESULT (*release_function)(VM_SAVED_STATE_DUMP_HANDLE);

static void *modules[2];
static int module_count;
static const char *path;
static pthread_barrier_t together;
static char answers[THREADS][64];

static void *first_call(void *argument)
{
    uintptr_t number = (uintptr_t)argument;
    void *module = modules[number % (unsigned)module_count];
    load_function load = (load_function)dlsym(module, "LoadSavedStateFileU8");
    count_function count = (count_function)dlsym(module, "GetVpCount");
    release_function release = (release_function)dlsym(module, "ReleaseSavedStateFiles");
    VM_SAVED_STATE_DUMP_HANDLE handle = (void *)1;
    UINT32 processors = 99;
    pthread_barrier_wait(&together);
    HRESULT loaded = load(path, &handle), counted = count(handle, &processors), released = release(handle);
    snprintf(answers[number], sizeof answers[number], "0x%08" PRIX32 " 0x%08" PRIX32 " 0x%08" PRIX32 " %" PRIu32,
             (uint32_t)loaded, (uint32_t)counted, (uint32_t)released, processors);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    if (argc < 3 || argc > 4)
        return 2;
    path = argv[1];
    module_count = argc - 2;
    for (int n = 0; n < module_count; n++)
        if ((modules[n] = dlopen(argv[n + 2], RTLD_NOW | RTLD_LOCAL)) == NULL)
            return 3;
    pthread_barrier_init(&together, NULL, THREADS);
    for (uintptr_t n = 0; n < THREADS; n++)
        if (pthread_create(&threads[n], NULL, first_call, (void *)n) != 0)
            return 4;
    for (int n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);
    for (int n = 0; n < THREADS; n++) {
        int known = 0;
        for (int other = 0; other < n; other++)
            known |= strcmp(answers[n], answers[other]) == 0;
        if (!known)
            puts(answers[n]);
    }
    return 0;
}
