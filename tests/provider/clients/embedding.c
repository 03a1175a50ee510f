/* A C program that runs Python itself, ends it, and calls the library after that; on request it starts Python once more.
 *
 *     embedding LIBRARY VMRS [again]
 */
#include <Python.h>

#include <dlfcn.h>
#include <stdio.h>

typedef int (*load_function)(const char *, void **);
typedef int (*release_function)(void *);

int main(int argc, char **argv)
{
    void *module = dlopen(argv[1], RTLD_NOW), *handle = NULL;
    if (argc < 3 || module == NULL)
        return 2;
    load_function load = (load_function)dlsym(module, "LoadSavedStateFileU8");
    release_function release = (release_function)dlsym(module, "ReleaseSavedStateFiles");
    Py_InitializeEx(0);
    PyThreadState *state = PyEval_SaveThread();
    printf("0x%08X\n", (unsigned)load(argv[2], &handle));
    PyEval_RestoreThread(state);
    Py_FinalizeEx();
    printf("0x%08X\n", (unsigned)release(handle));
    if (argc == 4) {
        Py_InitializeEx(0);
        PyEval_SaveThread();
        printf("0x%08X\n", (unsigned)load(argv[2], &handle));
    }
    fflush(stdout);
    return 0;
}
