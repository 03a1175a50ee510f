/* For a Python program: a signal that arrives between Python's last look and the library's call. */
#include <signal.h>
#include <stdint.h>

typedef int32_t (*count_function)(void *, uint32_t *);

int32_t interrupted_call(count_function count, void *handle, uint32_t *processors)
{
    raise(SIGINT);
    return count(handle, processors);
}
