/* Brings Python into the host process, or refuses. Everything else of the library is generated around this file.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Defined by the build: VMSS_EXECUTABLE, VMSS_LIBPYTHON, VMSS_BOOTSTRAP (Python source), VMSAVEDSTATE_SDK.
 * After enter() has said S_OK once, the trampolines of cffi may be called from any thread.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define VMSAVEDSTATE_UTF16 /* the plain names take UTF-16 here */
#include "vmsavedstatedump.h"

#define UNKNOWN 1 /* no HRESULT of a failure is positive */
#define E_ABORT ((HRESULT)0x80004004)

/* What Python answers beside the codes of failures: cffi answers 0 where it could not ask, and that is not success. */
#define DONE 1
#define INTERRUPTED 2

static atomic_int outcome = UNKNOWN;

#define BEGIN "vmsavedstatedumpprovider: "

/* Never to a file that is not such a log, nor to a disk: a mistyped name may be that of evidence. */
static int may_be_written(int fd)
{
    struct stat info;
    char begin[sizeof BEGIN] = "";
    if (fd < 0 || fstat(fd, &info) != 0)
        return 0;
    if (!S_ISREG(info.st_mode))
        return S_ISFIFO(info.st_mode) || isatty(fd);
    return read(fd, begin, sizeof BEGIN - 1) == 0 || strcmp(begin, BEGIN) == 0;
}

/* One line, where it is asked for with VMSAVEDSTATE_LOG=FILE, or - for standard error; else nothing. As log.py does. */
static HRESULT log_line(HRESULT code, const char *message)
{
    const char *where = getenv("VMSAVEDSTATE_LOG");
    char line[1024];
    if (where == NULL || *where == '\0')
        return code;
    int own = strcmp(where, "-") != 0;
    int fd = own ? open(where, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666) : 2;
    if (!own || may_be_written(fd)) {
        int size = snprintf(line, sizeof line, BEGIN "0x%08X: %.900s", (unsigned)code, message);
        for (int n = 0; n < size; n++)
            line[n] = line[n] < ' ' && line[n] > 0 ? ' ' : line[n]; /* one line, whatever the message */
        line[size++] = '\n';
        ssize_t written = write(fd, line, (size_t)size);
        (void)written; /* a failure to log is not a failure of the call */
    }
    if (own && fd >= 0)
        close(fd);
    return code;
}

/* Whether the Python whose functions this library was bound to is the one it was built for. In a process that runs another
 * version those functions are the other one's, and their structures are laid out otherwise. Asked while the library is
 * loaded, by one thread: Python puts the text together when it is first wanted, and a second one could see a part of it. */
static int is_built_for_this_python;

__attribute__((constructor)) static void compare_pythons(void)
{
    const char *version = Py_GetVersion();
    char wanted[16];
    int size = snprintf(wanted, sizeof wanted, "%d.%d.", PY_MAJOR_VERSION, PY_MINOR_VERSION);
#ifdef Py_GIL_DISABLED
    int free_threaded = 1;
#else
    int free_threaded = 0;
#endif
    is_built_for_this_python =
        strncmp(version, wanted, (size_t)size) == 0 && (strstr(version, "free-threading") != NULL) == free_threaded;
}

/* The libraries of both generations may be in one process, and start at once: what they hold while they do stands in a place
 * of Python itself, as cffi has one for the same purpose. It is an empty slot, and what is put there is as good as empty. */
struct holder {
    PyBufferProcs none;
    pid_t process; /* after a fork, nobody is left who would let go */
    atomic_int failed; /* Python could not be started, and nobody can say in which state it is; never taken back */
};

static struct holder holder;
#define PLACE ((_Atomic(void *) *)(void *)&PyMemberDescr_Type.tp_as_buffer)

/* 1 when this thread has the place for itself; 0 when a start of Python has failed before, or was cut off by a fork. */
static int hold_process(void)
{
    struct timespec pause = {0, 500000};
    for (;;) {
        void *other = NULL;
        if (atomic_compare_exchange_strong(PLACE, &other, &holder)) {
            holder.process = getpid();
            return 1;
        }
        struct holder *now = other;
        if (atomic_load(&now->failed) || (now->process != 0 && now->process != getpid()))
            return 0;
        nanosleep(&pause, NULL);
    }
}

static void let_process_go(void)
{
    if (!atomic_load(&holder.failed)) /* a failed start keeps the place for ever */
        atomic_store(PLACE, NULL);
}

/* Whether this thread holds the interpreter. PyGILState_Check() says yes to everybody once there is a sub-interpreter. */
static int holds_interpreter(void)
{
    PyThreadState *mine = PyGILState_GetThisThreadState();
    return mine != NULL && mine == _PyThreadState_UncheckedGet();
}

/* Python's own start, without its ways of ending a process: no arguments, no environment, no signal handlers, and no code of
 * others (`site` would run sitecustomize and .pth files; the bootstrap finds the packages by itself). */
static HRESULT start_python(void)
{
    PyPreConfig preconfig;
    PyConfig config;
    PyStatus status;

    if (access(VMSS_EXECUTABLE, X_OK) != 0)
        return log_line(E_FAIL, "the Python that built this library is gone, or not for this user: " VMSS_EXECUTABLE
                            "; build it again with `vmrs library`");
    /* A host that loaded this library for itself alone hides Python's functions from the extension modules. */
    dlopen(VMSS_LIBPYTHON, RTLD_LAZY | RTLD_NOLOAD | RTLD_GLOBAL);
    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1; /* paths are bytes, whatever locale the host has set */
    status = Py_PreInitialize(&preconfig);
    if (PyStatus_Exception(status)) {
        atomic_store(&holder.failed, 1);
        return log_line(E_FAIL, status.err_msg != NULL ? status.err_msg : "Python cannot be prepared");
    }
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.pathconfig_warnings = 0;
    config.write_bytecode = 0;
    status = PyConfig_SetBytesString(&config, &config.program_name, VMSS_EXECUTABLE);
    if (!PyStatus_Exception(status))
        status = PyConfig_SetBytesString(&config, &config.executable, VMSS_EXECUTABLE);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (holds_interpreter())
        PyEval_SaveThread(); /* nobody holds the interpreter between calls, nor after a failure */
    if (PyStatus_Exception(status) || !Py_IsInitialized()) {
        atomic_store(&holder.failed, 1);
        return log_line(E_FAIL, status.err_msg != NULL ? status.err_msg : "Python cannot be started");
    }
#ifdef __GLIBC__
    /* glibc returns the memory of every decoded block to the system, and a tenth of the time goes into getting it back,
     * until it has seen something larger freed (mallopt(3), M_MMAP_THRESHOLD). */
    void *volatile larger = malloc((size_t)4 << 20);
    free(larger);
#endif
    return S_OK;
}

/* Imports what the trampolines need, so that their own start has nothing left to fail at. */
static HRESULT import_package(int ours)
{
    const char *failure = "Python cannot run";
    PyGILState_STATE held = PyGILState_Ensure();
    PyObject *scope = PyDict_New();
    PyObject *source = Py_CompileString(VMSS_BOOTSTRAP, "<vmsavedstatedumpprovider>", Py_file_input);
    if (scope != NULL && source != NULL && PyDict_SetItemString(scope, "__builtins__", PyEval_GetBuiltins()) == 0 &&
        PyDict_SetItemString(scope, "ours", ours ? Py_True : Py_False) == 0) {
        PyObject *done = PyEval_EvalCode(source, scope, scope);
        PyObject *text = done != NULL ? PyDict_GetItemString(scope, "failure") : NULL;
        if (text != NULL && PyUnicode_Check(text))
            failure = PyUnicode_AsUTF8(text);
        Py_XDECREF(done);
    }
    HRESULT code = failure != NULL && *failure == '\0' ? S_OK : log_line(E_FAIL, failure != NULL ? failure : "");
    PyErr_Clear();
    Py_XDECREF(source);
    Py_XDECREF(scope);
    PyGILState_Release(held);
    return code;
}

extern int32_t vmss_attached(void); /* DONE once Python answers */

/* Python has ended, or is about to: nothing of it may be touched any more, even if the host starts it again. */
static void python_has_ended(void)
{
    atomic_store(&outcome, E_FAIL);
}

static HRESULT start_alone(void)
{
    struct sigaction interrupt;
    Dl_info self;
    HRESULT code = S_OK;
    int ours = !Py_IsInitialized();
    /* Python holds on to the trampolines, the other library looks at what is held: this one stays when the host closes it. */
    if (dladdr((void *)&outcome, &self) != 0)
        dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    if (ours) {
        sigaction(SIGINT, NULL, &interrupt);
        code = start_python();
    }
    if (code == S_OK)
        code = import_package(ours);
    if (ours) /* Python 3.10 takes it when its module `signal` is imported, which the bootstrap does */
        sigaction(SIGINT, &interrupt, NULL);
    if (code == S_OK && vmss_attached() != DONE)
        code = log_line(E_FAIL, "the Python functions behind the library cannot be attached");
    if (code == S_OK && Py_AtExit(python_has_ended) != 0)
        code = log_line(E_FAIL, "Python's end cannot be watched");
    return code;
}

/* The first call. Others wait for its end, without holding the interpreter. */
static HRESULT start(void)
{
    if (!is_built_for_this_python)
        return log_line(E_FAIL, "this process runs another version of Python than the library was built for; build it again "
                            "with `vmrs library` of that version");
    PyThreadState *held = Py_IsInitialized() && holds_interpreter() ? PyEval_SaveThread() : NULL;
    int known = E_FAIL;
    if (hold_process()) {
        known = atomic_load(&outcome);
        if (known == UNKNOWN) {
            known = start_alone();
            atomic_store(&outcome, known); /* before others may look */
        }
        let_process_go();
    } else {
        log_line(E_FAIL, "Python could not be started before, or this process was forked while it was");
    }
    if (held != NULL)
        PyEval_RestoreThread(held);
    return (HRESULT)known;
}

/* S_OK when Python is ready; the failure of the first call is that of all further ones. */
static HRESULT enter(void)
{
    int known = atomic_load_explicit(&outcome, memory_order_acquire);
    PyThreadState *thread = is_built_for_this_python && Py_IsInitialized() ? PyGILState_GetThisThreadState() : NULL;
    if (thread != NULL && PyThreadState_GetInterpreter(thread) != PyInterpreterState_Main())
        return log_line(E_FAIL, "a sub-interpreter of Python calls; the library answers the main one only");
    if (known == UNKNOWN)
        known = start();
    if (known == S_OK && !Py_IsInitialized())
        return log_line(E_FAIL, "Python has ended");
    return (HRESULT)known;
}

/* From Python's answer to the caller's code. */
static HRESULT leave(int32_t answer)
{
    if (answer == DONE)
        return S_OK;
    if (answer == INTERRUPTED) {
        PyErr_SetInterrupt(); /* the host is a Python program, and gets its KeyboardInterrupt when the call is over */
        return E_ABORT;
    }
    return answer < 0 ? answer : log_line(E_UNEXPECTED, "Python gave no answer");
}

#define EXPORTED __attribute__((visibility("default")))

EXTERN_C EXPORTED HLOCAL WINAPI LocalFree(HLOCAL memory)
{
    free(memory);
    return NULL;
}
