/* Translates much, then scans; says what became of the process.
 *
 *     much VMRS THREADS [as MIB | data MIB | env VALUE]
 *
 * With one thread it first prints whether numpy is here after 1, 30,001 and 60,000 translations. After the first one,
 * when all threads are there, it leaves itself so much more memory than it uses, or sets the variable that numpy's
 * linear algebra heeds.
 */
#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "vmsavedstatedump.h"

#define CALLS 60000

static VM_SAVED_STATE_DUMP_HANDLE handle;
static int alone;
static pthread_barrier_t together;

static int is_here(const char *what)
{
    char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (maps == NULL)
        return -1;
    while (fgets(line, sizeof line, maps) != NULL)
        found |= strstr(line, what) != NULL;
    fclose(maps);
    return found;
}

static int translated(void)
{
    UINT64 gpa = 0;
    return GuestVirtualAddressToPhysicalAddress(handle, 0, 0xFFFFFFFF80100700u, &gpa, NULL) == S_OK && gpa == 0x100700;
}

static void *translate(void *argument)
{
    uintptr_t failed = 0;
    (void)argument;
    if (!alone)
        pthread_barrier_wait(&together);
    for (int n = 1; n <= CALLS; n++) {
        failed += !translated();
        if (alone && (n == 30000 || n == CALLS - 1))
            printf("%d ", is_here("multiarray_umath"));
    }
    return (void *)failed;
}

static void change(const char *what, const char *value)
{
    if (strcmp(what, "env") == 0) {
        setenv("OPENBLAS_NUM_THREADS", value, 1);
        return;
    }
    unsigned long all = 0, data = 0;
    FILE *use = fopen("/proc/self/statm", "r"); /* pages: all, resident, shared, text, 0, data, 0 */
    if (use == NULL || fscanf(use, "%lu %*u %*u %*u %*u %lu", &all, &data) != 2)
        exit(4);
    fclose(use);
    int as = strcmp(what, "as") == 0;
    rlim_t size = (rlim_t)(as ? all : data) * (rlim_t)sysconf(_SC_PAGESIZE) + (rlim_t)atoi(value) * 1024 * 1024;
    struct rlimit limit = {size, size};
    if (setrlimit(as ? RLIMIT_AS : RLIMIT_DATA, &limit) != 0)
        exit(4);
}

static int count_threads(void)
{
    int count = -2; /* . and .. */
    DIR *tasks = opendir("/proc/self/task");
    while (tasks != NULL && readdir(tasks) != NULL)
        count++;
    closedir(tasks);
    return count;
}

static BOOL CALLBACK found(PVOID context, PDOS_IMAGE_INFO image)
{
    return context != NULL && image == NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    if (argc < 3 || LoadSavedStateFileU8(argv[1], &handle) != S_OK || !translated())
        return 1;
    int count = atoi(argv[2]);
    char *ballast = malloc(100u << 20); /* so that it matters how much is used already */
    if (ballast == NULL)
        return 3;
    uintptr_t failed = 0;
    alone = count == 1;
    if (alone)
        printf("%d ", is_here("multiarray_umath"));
    pthread_barrier_init(&together, NULL, (unsigned)count + 1);
    for (int n = 0; !alone && n < count; n++)
        if (pthread_create(&threads[n], NULL, translate, NULL) != 0)
            return 2;
    if (argc == 5)
        change(argv[3], argv[4]);
    if (alone)
        failed = (uintptr_t)translate(NULL);
    else
        pthread_barrier_wait(&together);
    for (int n = 0; !alone && n < count; n++) {
        void *answer;
        pthread_join(threads[n], &answer);
        failed += (uintptr_t)answer;
    }
    HRESULT scan = ScanMemoryForDosImages(handle, 0, 0xFFFFFFFF80200000u, 0xFFFFFFFF80100000u, NULL, found, NULL, 0);
    const char *variable = getenv("OPENBLAS_NUM_THREADS");
    printf("failed %d, threads %d, %s, 0x%08" PRIX32 "\n", (int)failed, count_threads(), variable ? variable : "unset",
           (uint32_t)scan);
    free(ballast);
    return 0;
}
