/* Brings Python into the host process, or refuses. Everything else of the library is generated around this file.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Defined by the build: VMSS_EXECUTABLE, VMSS_LIBPYTHON, VMSS_BOOTSTRAP (Python source), VMSS_GENERATION.
 * After enter() has said S_OK once, the trampolines of cffi may be called from any thread.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VMSAVEDSTATE_UTF16 /* the plain names take UTF-16 here */
#include "vmsavedstatedump.h"

#define UNKNOWN 1 /* no HRESULT of a failure is positive */

static atomic_int outcome = UNKNOWN;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;

#define BEGIN "vmsavedstatedumpprovider: "

/* One line for who asked for it with VMSAVEDSTATE_LOG=FILE, or - for standard error; else nothing. As log.py does. */
static HRESULT tell(HRESULT code, const char *message)
{
    const char *where = getenv("VMSAVEDSTATE_LOG");
    char line[1024], begin[sizeof BEGIN] = "";
    if (where == NULL || *where == '\0')
        return code;
    int fd = strcmp(where, "-") == 0 ? 2 : open(where, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    /* never to a file that is no such log: a name that was mistyped may be that of evidence */
    if (fd == 2 || (fd >= 0 && (read(fd, begin, sizeof BEGIN - 1) == 0 || strcmp(begin, BEGIN) == 0))) {
        int size = snprintf(line, sizeof line, BEGIN "0x%08X: %.900s\n", (unsigned)code, message);
        ssize_t written = write(fd, line, (size_t)size);
        (void)written; /* a log that fails is no failure */
    }
    if (fd > 2)
        close(fd);
    return code;
}

/* Whether the Python whose functions this library was bound to is the one it was built for. In a process that runs another
 * version those functions are the other one's, and their structures are laid out otherwise. */
static int is_built_for_this_python(void)
{
    const char *version = Py_GetVersion();
    char wanted[16];
    int size = snprintf(wanted, sizeof wanted, "%d.%d.", PY_MAJOR_VERSION, PY_MINOR_VERSION);
#ifdef Py_GIL_DISABLED
    int free_threaded = 1;
#else
    int free_threaded = 0;
#endif
    return strncmp(version, wanted, (size_t)size) == 0 && (strstr(version, "free-threading") != NULL) == free_threaded;
}

/* Python's own start, without its ways of ending a process: no arguments, no environment, no signal handlers. */
static HRESULT start_python(void)
{
    PyPreConfig preconfig;
    PyConfig config;
    PyStatus status;

    /* A host that loaded this library for itself alone hides Python's functions from the extension modules. */
    dlopen(VMSS_LIBPYTHON, RTLD_LAZY | RTLD_NOLOAD | RTLD_GLOBAL);
    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1; /* paths are bytes, whatever locale the host has set */
    status = Py_PreInitialize(&preconfig);
    if (PyStatus_Exception(status))
        return tell(E_FAIL, status.err_msg != NULL ? status.err_msg : "Python cannot be prepared");
    PyConfig_InitIsolatedConfig(&config);
    config.pathconfig_warnings = 0;
    config.write_bytecode = 0;
    status = PyConfig_SetBytesString(&config, &config.program_name, VMSS_EXECUTABLE);
    if (!PyStatus_Exception(status))
        status = PyConfig_SetBytesString(&config, &config.executable, VMSS_EXECUTABLE);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status) || !Py_IsInitialized())
        return tell(E_FAIL, status.err_msg != NULL ? status.err_msg : "Python cannot be started");
    PyEval_SaveThread(); /* nobody holds the interpreter between calls */
#ifdef __GLIBC__
    /* glibc returns the memory of every decoded block to the system, and a tenth of the time goes into getting it back,
     * until it has seen something larger freed (mallopt(3), M_MMAP_THRESHOLD). */
    void *volatile larger = malloc((size_t)4 << 20);
    free(larger);
#endif
    return S_OK;
}

/* Imports what the trampolines need, so that their own start has nothing left to fail at. */
static HRESULT import_package(void)
{
    const char *failure = "Python cannot run";
    PyGILState_STATE held = PyGILState_Ensure();
    PyObject *scope = PyDict_New();
    PyObject *source = Py_CompileString(VMSS_BOOTSTRAP, "<vmsavedstatedumpprovider>", Py_file_input);
    if (scope != NULL && source != NULL && PyDict_SetItemString(scope, "__builtins__", PyEval_GetBuiltins()) == 0) {
        PyObject *done = PyEval_EvalCode(source, scope, scope);
        PyObject *text = done != NULL ? PyDict_GetItemString(scope, "failure") : NULL;
        if (text != NULL && PyUnicode_Check(text))
            failure = PyUnicode_AsUTF8(text);
        Py_XDECREF(done);
    }
    HRESULT code = failure != NULL && *failure == '\0' ? S_OK : tell(E_FAIL, failure != NULL ? failure : "");
    PyErr_Clear();
    Py_XDECREF(source);
    Py_XDECREF(scope);
    PyGILState_Release(held);
    return code;
}

extern int32_t vmss_attached(void); /* 1 once Python answers; cffi gives 0 if its start failed */

static HRESULT start(void)
{
    HRESULT code = S_OK;
    if (!is_built_for_this_python())
        return tell(E_FAIL, "this process runs another version of Python than the library was built for; build it again "
                            "with `vmrs library` of that version");
    /* Python's lock is never waited for while this one is held: where Python runs already, nothing is done here. */
    pthread_mutex_lock(&starting);
    if (!Py_IsInitialized())
        code = start_python();
    pthread_mutex_unlock(&starting);
    if (code == S_OK)
        code = import_package();
    if (code == S_OK && vmss_attached() != 1)
        code = tell(E_FAIL, "the Python functions behind the library cannot be attached");
    return code;
}

/* S_OK when Python is ready; the failure of the first call is that of all further ones. */
static HRESULT enter(void)
{
    int known = atomic_load_explicit(&outcome, memory_order_acquire);
    if (known == UNKNOWN) {
        known = start();
        atomic_store_explicit(&outcome, known, memory_order_release);
    }
    return (HRESULT)known;
}

EXTERN_C HLOCAL WINAPI LocalFree(HLOCAL memory)
{
    free(memory);
    return NULL;
}
